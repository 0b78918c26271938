// The one loop over threads of the CPU backend.
#pragma once

#include <cstdint>

namespace alrp::cpu {

namespace detail {
using Task = void (*)(const void* f, int64_t begin, int64_t end);
void parallel_for(int64_t begin, int64_t end, int64_t grain, Task task, const void* f);
}  // namespace detail

// f(from, to) on parts of [begin, end) that are at least `grain` long, as many at once as torch.set_num_threads
// allows. Returns when all are done, and throws on what one of them threw.
template <typename F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  detail::parallel_for(
      begin, end, grain,
      [](const void* self, int64_t from, int64_t to) { (*static_cast<const F*>(self))(from, to); }, &f);
}

}  // namespace alrp::cpu

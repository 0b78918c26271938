// The loops over threads of the CPU backend.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace alrp::cpu {

namespace detail {
using Task = void (*)(const void* f, int64_t begin, int64_t end);
void parallel_for(int64_t begin, int64_t end, int64_t grain, Task task, const void* f);
int64_t threads();  // that torch.set_num_threads allows
}  // namespace detail

// f(from, to) on parts of [begin, end) that are at least `grain` long, as many at once as torch.set_num_threads
// allows. Returns when all are done, and throws on what one of them threw.
template <typename F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  detail::parallel_for(
      begin, end, grain,
      [](const void* self, int64_t from, int64_t to) { (*static_cast<const F*>(self))(from, to); }, &f);
}

// Parts of [0, count) that threads take one by one: each those of its own share, in order, and then what others have left.
// So a thread whose core is wanted elsewhere too holds up nobody, and what a core keeps of one loop serves the next.
class Shares {
 public:
  Shares(int64_t count, int64_t part, int64_t threads) : count_(count), part_(part), next_(threads) {
    for (int64_t k = 0; k < threads; ++k) next_[k].part = first_of(k);
  }

  // f(from, to) for each part that this thread gets.
  template <typename F>
  void take(int64_t thread, const F& f) {
    const auto threads = static_cast<int64_t>(next_.size());
    for (int64_t k = 0; k < threads; ++k) {
      const int64_t share = (thread + k) % threads, end = first_of(share + 1);
      for (int64_t p; (p = next_[share].part.fetch_add(1, std::memory_order_relaxed)) < end;)
        f(p * part_, std::min(count_, (p + 1) * part_));
    }
  }

 private:
  // The first part of a share.
  int64_t first_of(int64_t share) const {
    return (count_ + part_ - 1) / part_ * share / static_cast<int64_t>(next_.size());
  }

  struct alignas(64) Next {  // a cache line each
    std::atomic<int64_t> part;
  };

  int64_t count_, part_;
  std::vector<Next> next_;
};

// f(take) once on each thread; take(g) calls g(from, to) for parts of [0, count) of that length, until all are taken.
template <typename F>
void share_out(int64_t count, int64_t part, const F& f) {
  if (count <= 0) return;
  const int64_t threads = std::clamp<int64_t>(count / part, 1, detail::threads());
  Shares shares(count, part, threads);
  parallel_for(0, threads, 1, [&](int64_t from, int64_t to) {
    for (int64_t thread = from; thread < to; ++thread) f([&](const auto& g) { shares.take(thread, g); });
  });
}

}  // namespace alrp::cpu

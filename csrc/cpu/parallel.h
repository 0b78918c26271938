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

// f(from, to) on parts of [begin, end) that are at least `grain` long, on as many threads as
// torch.set_num_threads allows. Returns when all are done, and rethrows what one of them threw.
template <typename F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  detail::parallel_for(
      begin, end, grain,
      [](const void* self, int64_t from, int64_t to) { (*static_cast<const F*>(self))(from, to); }, &f);
}

// The numbers of [0, count), which threads take `part` neighbours at a time: each from its own share, in
// order, and then what others have left. So a thread on a busy core holds up nobody, and what a core's cache
// holds after one loop serves the next.
class WorkQueue {
 public:
  WorkQueue(int64_t count, int64_t part, int64_t threads) : count_(count), part_(part), next_(threads) {
    for (int64_t k = 0; k < threads; ++k) next_[k].part = first_of(k);
  }

  // f(k) for each number that this thread gets.
  template <typename F>
  void take(int64_t thread, const F& f) {
    const auto threads = static_cast<int64_t>(next_.size());
    for (int64_t t = 0; t < threads; ++t) {
      const int64_t share = (thread + t) % threads, end = first_of(share + 1);
      for (int64_t p; (p = next_[share].part.fetch_add(1, std::memory_order_relaxed)) < end;)
        for (int64_t k = p * part_; k < std::min(count_, (p + 1) * part_); ++k) f(k);
    }
  }

 private:
  // The first part of a thread's share.
  int64_t first_of(int64_t thread) const {
    return (count_ + part_ - 1) / part_ * thread / static_cast<int64_t>(next_.size());
  }

  struct alignas(64) Next {  // a cache line each
    std::atomic<int64_t> part;
  };

  int64_t count_, part_;
  std::vector<Next> next_;
};

// f(take) once on each thread; take(g) calls g(k) for numbers k of [0, count) until all are taken, `part`
// neighbours at a time.
template <typename F>
void on_each_thread(int64_t count, int64_t part, const F& f) {
  if (count <= 0) return;
  const int64_t threads = std::clamp<int64_t>(count / part, 1, detail::threads());
  WorkQueue queue(count, part, threads);
  parallel_for(0, threads, 1, [&](int64_t from, int64_t to) {
    for (int64_t thread = from; thread < to; ++thread) f([&](const auto& g) { queue.take(thread, g); });
  });
}

}  // namespace alrp::cpu

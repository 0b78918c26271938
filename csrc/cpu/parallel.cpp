#include "parallel.h"

#include <ATen/Parallel.h>
#include <pthread.h>

#include <algorithm>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace alrp::cpu::detail {
namespace {

// Threads do not survive a fork, and in the child OpenMP waits for those of its pool for ever: a child takes
// threads of its own. ThreadSanitizer understands these, but no OpenMP that it did not compile.
#ifdef __SANITIZE_THREAD__
constexpr bool own_threads = true;
#else
bool own_threads = false;  // set in a child while it has one thread
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { own_threads = true; });
#endif

void on_own_threads(int64_t begin, int64_t end, int64_t grain, Task task, const void* f) {
  const int64_t parts = std::min<int64_t>(at::get_num_threads(), (end - begin) / std::max<int64_t>(1, grain));
  if (parts <= 1 || at::in_parallel_region()) return task(f, begin, end);
  const int64_t size = (end - begin + parts - 1) / parts;
  std::vector<std::exception_ptr> thrown(parts);
  std::vector<std::thread> threads;
  threads.reserve(parts);
  const auto part = [&](int64_t k) noexcept {
    try {
      const int64_t from = begin + k * size;
      if (from < end) task(f, from, std::min(end, from + size));
    } catch (...) {
      thrown[k] = std::current_exception();
    }
  };
  int64_t started = 1;
  try {
    for (; started < parts; ++started) threads.emplace_back(part, started);
  } catch (const std::system_error&) {  // no more threads are to be had: what is left is done here
  }
  part(0);
  for (int64_t k = started; k < parts; ++k) part(k);
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : thrown)
    if (error) std::rethrow_exception(error);
}

}  // namespace

void parallel_for(int64_t begin, int64_t end, int64_t grain, Task task, const void* f) {
  if (begin >= end) return;
  if (own_threads)
    on_own_threads(begin, end, grain, task, f);
  else
    at::parallel_for(begin, end, grain, [=](int64_t from, int64_t to) { task(f, from, to); });
}

int64_t threads() { return at::get_num_threads(); }

}  // namespace alrp::cpu::detail

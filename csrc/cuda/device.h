// What launches need to know of the current device and of a kernel on it. The driver is asked once; safe from
// several threads.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>

namespace alrp::cuda {

// The answer to ask(), which is called the first time that a key comes. Answers stay where they are.
template <typename Key, typename Ask>
auto once(const Key& key, const Ask& ask) -> const decltype(ask())& {
  static std::mutex mutex;
  static std::map<Key, decltype(ask())> answers;
  const std::lock_guard lock(mutex);
  const auto found = answers.find(key);
  return found != answers.end() ? found->second : answers.emplace(key, ask()).first->second;
}

struct Device {
  int number;
  int multiprocessors;
  size_t shared_per_block;           // static and dynamic shared memory that a block may have
  size_t shared_per_multiprocessor;  // that its blocks share
  size_t shared_reserved;            // of each block, by the system
};

const Device& current_device();

// Lets a kernel have all the dynamic shared memory of a block. The limit is the kernel's, not a launch's: set
// to what one launch needs, another thread could lower it before that launch.
void allow_dynamic_shared(const void* kernel);

// Blocks of `threads` threads and `shared` bytes of dynamic shared memory that the device runs at once. The
// kernel may have so much, and is always called with the same threads.
int resident_blocks(const void* kernel, int threads, size_t shared);

}  // namespace alrp::cuda

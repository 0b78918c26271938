// Lays arrays out in one piece of memory; over a null base it only measures.
#pragma once

#include <cstddef>
#include <cstdint>

namespace alrp {

class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  // The next `count` elements, aligned to 256 bytes as the base is.
  template <typename T>
  T* take(int64_t count) {
    char* here = base_ ? base_ + bytes_ : nullptr;
    bytes_ += (static_cast<size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return reinterpret_cast<T*>(here);
  }

  size_t bytes() const { return bytes_; }

 private:
  char* base_;
  size_t bytes_ = 0;
};

}  // namespace alrp

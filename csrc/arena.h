// Lays arrays out in one piece of memory; over a null base it only measures.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace alrp {

class Arena {
 public:
  explicit Arena(void* base = nullptr) : base_(static_cast<char*>(base)) {}

  // The next `count` elements, aligned if there are any; the base is aligned to 256 bytes.
  template <typename T>
  T* take(int64_t count, size_t alignment = 256) {
    const auto up = [alignment](size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; };
    const size_t offset = count ? up(bytes_) : bytes_, bytes = static_cast<size_t>(count) * sizeof(T);
    if (!base_) arrays_.push_back({offset, bytes});
    bytes_ = offset + up(bytes);
    return reinterpret_cast<T*>(base_ ? base_ + offset : nullptr);
  }

  size_t bytes() const { return bytes_; }

  // What was measured, for who watches each array's bounds.
  struct Place {
    size_t offset, bytes;
  };
  const std::vector<Place>& arrays() const { return arrays_; }

 private:
  char* base_;
  size_t bytes_ = 0;
  std::vector<Place> arrays_;
};

}  // namespace alrp

// Logits and their gradients on the CPU: by flat index, or block by block as memory has them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "array.h"
#include "blocks.h"

namespace alrp::cpu {

// The map that has flat index i.
inline Map map_with(const Input& input, int64_t i) {
  return map_at(input.logits, input.n, map_number(input.logits, i));
}

// f(map, offset in memory, stride, logits) for the logits [begin, begin + size) by flat index, in order.
template <typename F>
void each_run(const Input& input, int64_t begin, int64_t size, const F& f) {
  while (size > 0) {
    const Map map = map_with(input, begin);
    const Dim last = map.dim[map.dims - 1];
    const int64_t run = std::min(size, last.size - (begin - map.begin) % last.size);
    f(map, offset_of(map, begin), last.stride, run);
    begin += run, size -= run;
  }
}

// The logits [begin, begin + size) by flat index: where they lie, or in `own` if they lie apart.
template <typename T>
const T* read_run(const Input& input, int64_t begin, int64_t size, T* own) {
  const T* there = nullptr;
  T* to = own;
  each_run(input, begin, size, [&](const Map& map, int64_t offset, int64_t stride, int64_t run) {
    const T* const from = static_cast<const T*>(map.logits) + offset;
    if (run == size && stride == 1) {
      there = from;
      return;
    }
    for (int64_t k = 0; k < run; ++k) to[k] = from[k * stride];
    to += run;
  });
  return there ? there : own;
}

// f(gradient of a logit) for the logits [begin, begin + size) by flat index, in order.
template <typename T, typename F>
void each_gradient(const Input& input, int64_t begin, int64_t size, const F& f) {
  each_run(input, begin, size, [&](const Map& map, int64_t offset, int64_t stride, int64_t run) {
    T* const to = static_cast<T*>(map.gradient) + offset;
    for (int64_t k = 0; k < run; ++k) f(to[k * stride]);
  });
}

// value(k) as the gradient of the k-th negative of a block, and 0 for the rest of it.
template <typename F>
void write_negatives(const Input& input, const Block& block, const F& value) {
  with_dtype(input.logits.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    T gradients[kBlockLogits];
    std::fill_n(gradients, block.size, T(0));
    for (int64_t k = 0; k < block.negative_count; ++k) gradients[block.columns[k]] = rounded<T>(value(k));
    const T* from = gradients;
    each_gradient<T>(input, block.begin, block.size, [&](T& to) { to = *from++; });
  });
}

// `value` as the gradient of the logits [begin, begin + size) by flat index.
inline void fill_gradients(const Input& input, int64_t begin, int64_t size, double value) {
  with_dtype(input.logits.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    each_gradient<T>(input, begin, size, [gradient = rounded<T>(value)](T& to) { to = gradient; });
  });
}

inline double load(const Input& input, int64_t i) {
  const Map map = map_with(input, i);
  return load({map.logits, input.logits.dtype}, offset_of(map, i));
}

inline void store_gradient(const Input& input, int64_t i, double value) {
  const Map map = map_with(input, i);
  store({map.gradient, input.logits.dtype}, offset_of(map, i), value);
}

// The blocks of all maps, as memory has them: none reaches over the end of a map.
class MemoryBlocks {
 public:
  explicit MemoryBlocks(const Input& input) : input_(input) {
    for (int32_t k = 0; k < input.logits.count; ++k) {
      const Map map = map_at(input.logits, input.n, k);
      first_.push_back(first_.back() + block_count(map.end - map.begin));
    }
  }

  int64_t count() const { return first_.back(); }

  struct Range {
    Map map;
    int64_t begin, size;  // in its memory
  };

  Range operator[](int64_t b) const {
    const auto k =
        static_cast<int32_t>(std::upper_bound(first_.begin(), first_.end(), b) - first_.begin()) - 1;
    const Map map = map_at(input_.logits, input_.n, k);
    const int64_t begin = (b - first_[k]) * kBlockLogits;
    return {map, begin, std::min(kBlockLogits, map.end - map.begin - begin)};
  }

 private:
  const Input& input_;
  std::vector<int64_t> first_{0};  // of each map
};

}  // namespace alrp::cpu

// Logits where a head leaves them: one tensor, or maps that are ranked together, each a permuted view of dense memory.
// Their gradients lie in memory alike.
//
// The flat index of a logit is its place in all maps one after the other, each in the order of its view. Streams go by
// memory and need none; what is a positive or ignored is known by flat index.
#pragma once

#include <cstdint>

#include "labels.h"
#include "step.h"

namespace alrp {

enum class Dtype : int32_t { kFloat32, kFloat64, kFloat16, kBFloat16 };

constexpr int kMapDims =
    8;  // images, depth, height, width, anchors, classes and what else a model has, in any order

// What memory has one after the other is one dimension. Aligned, so that a device loads both numbers at once.
struct alignas(16) Dim {
  int64_t size, stride;
};

struct Map {
  void* logits;
  void* gradient;      // null where none is wanted
  int64_t begin, end;  // flat indices
  int32_t dims;        // 1: memory is in the order of the flat index
  Dim dim[kMapDims];   // of the view
};

struct Logits {
  Dtype dtype;
  int32_t count;    // of maps
  void* data;       // without maps: all logits, in the order of the flat index
  void* gradient;   // likewise; null where none is wanted
  const Map* maps;  // ascending; null where there are none, and count is 1
  bool in_order;    // all of them lie in memory in the order of the flat index
};

// Map k of n logits.
ALRP_HD Map map_at(const Logits& logits, int64_t n, int32_t k) {
  if (logits.maps) return logits.maps[k];
  return {logits.data, logits.gradient, 0, n, 1, {{n, 1}}};
}

// Which map has flat index i: the last one that begins at or before it.
ALRP_HD int32_t map_number(const Logits& logits, int64_t i) {
  int32_t low = 0, high = logits.count - 1;
  while (low < high) {
    const int32_t middle = (low + high + 1) / 2;
    if (logits.maps[middle].begin <= i)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

// Where in memory the logit with flat index i is, in elements.
ALRP_HD int64_t offset_of(const Map& map, int64_t i) {
  int64_t rest = i - map.begin, offset = 0;
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // unrolled, it takes registers that kernels lack
#endif
  for (int32_t d = map.dims - 1; d > 0; --d) {
    const Dim dim = map.dim[d];
    const int64_t outer = rest / dim.size;
    offset += (rest - outer * dim.size) * dim.stride;
    rest = outer;
  }
  return offset + rest * map.dim[0].stride;
}

// Whether the logits of a map lie in memory as their labels do, each with its own: who goes by memory knows these.
ALRP_HD bool has_labels(const Map& map, const Labels& labels) { return labels.classes == 0 && map.dims == 1; }
ALRP_HD bool all_have_labels(const Logits& logits, const Labels& labels) {
  return labels.classes == 0 && logits.in_order;
}

}  // namespace alrp

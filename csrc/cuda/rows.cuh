// Logits that labels say are ignored, where streams do not see it.
#pragma once

#include <algorithm>

#include "../ranking.h"
#include "launch.cuh"

namespace alrp::cuda {

// Where a logit and its gradient lie.
struct Memory {
  void *logits, *gradient;
};

// Whether streams leave logits that may be ignored to walk_ignored: they go by memory, and need not know labels.
ALRP_HD bool is_walked(const Input& input) { return input.labels.classes != 0 || input.logits.maps; }

__device__ __forceinline__ bool is_ignored(const Labels& labels, uint64_t bits) {
  return labels.classes ? row_class(labels, bits) == kIgnoredRow : flat_mark(labels, bits) == Mark::kIgnored;
}

// f(memory, offset) for what is ignored and has no labels beside it in memory, all lanes of a warp on one row. Any grid
// of kBlockThreads threads.
template <int kBlockThreads, typename F>
__device__ __forceinline__ void walk_ignored(const Input& input, const F& f) {
  const Labels& labels = input.labels;
  const Logits& logits = input.logits;
  const int64_t rows = label_count(labels, input.n), width = max(labels.classes, int64_t{1});
  const int lane = threadIdx.x % 32;
  for (int64_t first = int64_t{blockIdx.x} * kBlockThreads + threadIdx.x - lane; first < rows;
       first += int64_t{gridDim.x} * kBlockThreads) {
    const int64_t row = first + lane;
    const bool ignored = row < rows && is_ignored(labels, label_bits(labels, row));
    for (unsigned left = __ballot_sync(0xffffffffu, ignored); left; left &= left - 1) {
      int64_t begin = (first + __ffs(left) - 1) * width, stride = 1;
      Memory memory{logits.data, logits.gradient};
      if (logits.maps) {
        const Map& map = logits.maps[map_of(logits, begin)];
        if (has_labels(map, labels)) continue;
        begin = offset_of(map, begin);
        stride = map.stride[map.dims - 1];
        memory = {map.logits, map.gradient};
      }
      for (int64_t c = lane; c < width; c += 32) f(memory, begin + c * stride);
    }
  }
}

// A grid of kThreads threads that walks over `items`.
inline unsigned walking_blocks(int64_t items) {
  constexpr int kBlocksPerMultiprocessor = 4;
  const int64_t most = int64_t{kBlocksPerMultiprocessor} * current_device().multiprocessors;
  return static_cast<unsigned>(std::clamp<int64_t>(blocks_for(items), 1, most));
}

}  // namespace alrp::cuda

// Rows of logits that class indices say are ignored.
#pragma once

#include <algorithm>

#include "../labels.h"
#include "launch.cuh"

namespace alrp::cuda {

// f(logit) for what is ignored of n logits, all lanes of a warp on one row. Any grid of kBlockThreads threads.
template <int kBlockThreads, typename F>
__device__ __forceinline__ void walk_ignored_rows(const Labels& labels, int64_t n, const F& f) {
  const int64_t rows = label_count(labels, n);
  const int lane = threadIdx.x % 32;
  for (int64_t first = int64_t{blockIdx.x} * kBlockThreads + threadIdx.x - lane; first < rows;
       first += int64_t{gridDim.x} * kBlockThreads) {
    const int64_t row = first + lane;
    const bool ignored = row < rows && row_class(labels, label_bits(labels, row)) == kIgnoredRow;
    for (unsigned left = __ballot_sync(0xffffffffu, ignored); left; left &= left - 1) {
      const int64_t begin = (first + __ffs(left) - 1) * labels.classes;
      for (int64_t c = lane; c < labels.classes; c += 32) f(begin + c);
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

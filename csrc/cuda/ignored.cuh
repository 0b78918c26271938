// Logits that labels say are ignored, where streams do not see it.
#pragma once

#include "../ranking.h"
#include "array.cuh"

namespace alrp::cuda {

// Whether streams leave logits that may be ignored to walk_ignored: they go by memory, and need not know labels.
ALRP_HD bool is_walked(const Input& input) { return !all_have_labels(input.logits, input.labels); }

__device__ __forceinline__ bool is_ignored(const Labels& labels, uint64_t bits) {
  return labels.classes ? row_class(labels, bits) == kIgnoredRow : flat_mark(labels, bits) == Mark::kIgnored;
}

// f(place, offset) for what is ignored and has no labels beside it in memory: all lanes of a warp on one row of classes,
// or each on a logit of its own. Any grid of kBlockThreads threads.
template <int kBlockThreads, typename F>
__device__ __forceinline__ void walk_ignored(const Input& input, const F& f) {
  const Labels& labels = input.labels;
  const int64_t rows = label_count(labels, input.n), width = max(labels.classes, int64_t{1});
  const int lane = threadIdx.x % 32;
  const auto visit = [&](int64_t row, int64_t from, int64_t each) {
    const Place place = place_of(input, row * width);
    if (place.has_labels) return;
    for (int64_t c = from; c < width; c += each) f(place, place.offset + c * place.step);
  };
  for (int64_t first = int64_t{blockIdx.x} * kBlockThreads + threadIdx.x - lane; first < rows;
       first += int64_t{gridDim.x} * kBlockThreads) {
    const int64_t row = first + lane;
    const bool ignored = row < rows && is_ignored(labels, label_bits(labels, row));
    if (width == 1) {
      if (ignored) visit(row, 0, 1);
      continue;
    }
    for (unsigned left = __ballot_sync(0xffffffffu, ignored); left; left &= left - 1)
      visit(first + __ffs(left) - 1, lane, 32);
  }
}

}  // namespace alrp::cuda

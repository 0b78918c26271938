// Fetching the next block while the loops over this one compute.
#pragma once

#include <cstdint>

#include "loops.h"

namespace alrp::cpu {

// Fetches the next block's scores and marks, spread out over the loops over this one: all at once would hold
// up the loads that the loops wait for.
class NextBlock {
 public:
  explicit NextBlock(const Selected& selected) : scores_(selected.next_scores), marks_(selected.next_marks) {}

  // What lies at k, a multiple of kLanes. Into the second-level cache: hardware prefetches within a page only.
  // always_inline: GCC takes a function that only prefetches for one without effects, and drops calls of it.
  __attribute__((always_inline)) void fetch(int64_t k) const {
    constexpr int kRead = 0, kSecondLevel = 2;
    __builtin_prefetch(scores_ + k, kRead, kSecondLevel);
    if (k % kLine == 0) __builtin_prefetch(marks_ + k, kRead, kSecondLevel);
  }

 private:
  static constexpr int64_t kLine = 64;  // marks in a line of the cache

  const float* scores_;
  const Mark* marks_;
};

}  // namespace alrp::cpu

// Fetching the next block while the loops over this one compute.
#pragma once

#include <cstdint>

#include "loops.h"

namespace alrp::cpu {

// Fetches the next block's scores, spread out over the loops over this one: all at once would hold up the
// loads that the loops wait for.
class NextBlock {
 public:
  explicit NextBlock(const Selected& selected) : scores_(selected.next_scores) {}

  // What lies at k, a multiple of kLanes. Into the second-level cache: hardware prefetches within a page only.
  // always_inline: GCC takes a function that only prefetches for one without effects, and drops calls of it.
  __attribute__((always_inline)) void fetch(int64_t k) const {
    constexpr int kRead = 0, kSecondLevel = 2;
    __builtin_prefetch(scores_ + k, kRead, kSecondLevel);
  }

 private:
  const float* scores_;
};

}  // namespace alrp::cpu

// Doubles as integers to sort by.
#pragma once

#include <cstdint>

namespace alrp::cuda {

// Unsigned integers in the order of doubles; -0.0 and 0.0 have one key.
__device__ inline uint64_t key_of(double score) {
  const auto bits = static_cast<uint64_t>(__double_as_longlong(score == 0 ? 0.0 : score));
  return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}

__device__ inline double score_of(uint64_t key) {
  return __longlong_as_double(static_cast<long long>(key >> 63 ? key ^ uint64_t{1} << 63 : ~key));
}

}  // namespace alrp::cuda

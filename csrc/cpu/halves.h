// Arrays of float from and to the half types: what static_cast gives for each number, but faster.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>

#include "loops.h"

namespace alrp::cpu {

inline void to_floats(const c10::Half* from, int64_t size, float* to) {
  loops().half_to_float(from, size, to);
}

inline void to_floats(const c10::BFloat16* from, int64_t size, float* to) {
  loops().bfloat16_to_float(from, size, to);
}

inline void from_floats(const float* from, int64_t size, c10::Half* to) {
  loops().float_to_half(from, size, to);
}

inline void from_floats(const float* from, int64_t size, c10::BFloat16* to) {
  loops().float_to_bfloat16(from, size, to);
}

// `from` itself if it is float or double; halves are converted into `own`.
template <typename T>
const auto* without_halves(const T* from, int64_t size, float* own) {
  if constexpr (sizeof(T) == 2) {
    to_floats(from, size, own);
    return static_cast<const float*>(own);
  } else {
    return from;
  }
}

}  // namespace alrp::cpu

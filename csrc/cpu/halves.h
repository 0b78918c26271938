// Arrays of float from and to the half types: what static_cast gives for each number, but faster.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>

namespace alrp::cpu {

void to_floats(const c10::Half* from, int64_t size, float* to);
void to_floats(const c10::BFloat16* from, int64_t size, float* to);

void from_floats(const float* from, int64_t size, c10::Half* to);
void from_floats(const float* from, int64_t size, c10::BFloat16* to);

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

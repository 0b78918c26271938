// Reading and writing floating arrays of any dtype on the CPU, one element at a time.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "../ranking.h"

namespace alrp::cpu {

// Calls f with a typed null pointer: the one switch over dtypes on the CPU.
template <typename F>
auto with_dtype(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::kFloat32:
      return f(static_cast<float*>(nullptr));
    case Dtype::kFloat64:
      return f(static_cast<double*>(nullptr));
    case Dtype::kFloat16:
      return f(static_cast<c10::Half*>(nullptr));
    default:
      return f(static_cast<c10::BFloat16*>(nullptr));
  }
}

template <typename T>
T rounded(double value) {
  // Through float: c10's half types convert from float alone. Rounding twice stays within their last bit.
  if constexpr (sizeof(T) == 2)
    return T(static_cast<float>(value));
  else
    return static_cast<T>(value);
}

inline double load(const Array& array, int64_t i) {
  return with_dtype(array.dtype,
                    [&](auto* type) -> double { return static_cast<decltype(type)>(array.data)[i]; });
}

inline double load_scalar(const void* data, Dtype dtype) { return load({const_cast<void*>(data), dtype}, 0); }

inline void store(const Array& array, int64_t i, double value) {
  with_dtype(array.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    static_cast<T*>(array.data)[i] = rounded<T>(value);
  });
}

}  // namespace alrp::cpu

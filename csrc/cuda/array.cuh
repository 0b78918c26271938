// Reading and writing floating arrays of any dtype in a kernel. The branch on the dtype is the same for every
// thread.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../ranking.h"

namespace alrp::cuda {

__device__ __forceinline__ double load(const Array& array, int64_t i) {
  switch (array.dtype) {
    case Dtype::kFloat32:
      return static_cast<const float*>(array.data)[i];
    case Dtype::kFloat64:
      return static_cast<const double*>(array.data)[i];
    case Dtype::kFloat16:
      return __half2float(static_cast<const __half*>(array.data)[i]);
    default:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(array.data)[i]);
  }
}

__device__ __forceinline__ void store(const Array& array, int64_t i, double value) {
  switch (array.dtype) {
    case Dtype::kFloat32:
      static_cast<float*>(array.data)[i] = static_cast<float>(value);
      break;
    case Dtype::kFloat64:
      static_cast<double*>(array.data)[i] = value;
      break;
    case Dtype::kFloat16:
      static_cast<__half*>(array.data)[i] = __float2half_rn(static_cast<float>(value));
      break;
    default:
      static_cast<__nv_bfloat16*>(array.data)[i] = __float2bfloat16_rn(static_cast<float>(value));
  }
}

__device__ __forceinline__ double load_scalar(const void* data, Dtype dtype) {
  return load({const_cast<void*>(data), dtype}, 0);
}

// Where the logit with flat index i and its gradient lie.
struct Place {
  void *logits, *gradient;
  int64_t offset, step;  // and how far from it the next one of its row
  bool has_labels;       // see ../maps.h
};

__device__ __forceinline__ Place place_of(const Input& input, int64_t i) {
  const Logits& logits = input.logits;
  if (!logits.maps) return {logits.data, logits.gradient, i, 1, input.labels.classes == 0};
  const Map& map = logits.maps[map_number(logits, i)];
  return {map.logits, map.gradient, offset_of(map, i), map.dim[map.dims - 1].stride,
          has_labels(map, input.labels)};
}

__device__ __forceinline__ double load(const Input& input, int64_t i) {
  const Place place = place_of(input, i);
  return load({place.logits, input.logits.dtype}, place.offset);
}

__device__ __forceinline__ void store_gradient(const Input& input, int64_t i, double value) {
  const Place place = place_of(input, i);
  store({place.gradient, input.logits.dtype}, place.offset, value);
}

__device__ __forceinline__ double quiet_nan() { return __longlong_as_double(0x7ff8000000000000LL); }

// Sets a field of Status, which any thread may.
__device__ __forceinline__ void raise(int64_t* field) {
  atomicOr(reinterpret_cast<unsigned long long*>(field), 1ULL);
}

}  // namespace alrp::cuda

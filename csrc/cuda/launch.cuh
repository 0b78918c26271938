// Launches: their shapes, and the errors that they report.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <climits>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "device.h"

namespace alrp::cuda {

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("alrp_cuda: ") + what + ": " + cudaGetErrorString(error));
}

struct Shape {
  dim3 blocks;
  unsigned threads;
  size_t shared = 0;  // bytes of dynamic shared memory
};

constexpr int kThreads = 256;

constexpr int64_t blocks_for(int64_t items, int64_t each = kThreads) { return (items + each - 1) / each; }

// A block of `threads` threads for `each` items: by default a thread for each item. What no grid can hold is
// refused: cut to 32 bits, the number of blocks could be one that can be launched but does not cover all
// items.
inline Shape per_item(int64_t items, unsigned threads = kThreads, int64_t each = kThreads) {
  const int64_t blocks = blocks_for(items, each);
  if (blocks > INT_MAX)
    throw std::runtime_error("alrp_cuda: " + std::to_string(items) + " elements are more than a grid holds");
  return {static_cast<unsigned>(blocks), threads};
}

// The item of a thread of per_item(items).
__device__ __forceinline__ int64_t own_item() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }

// A grid of kThreads threads that walks over `items`.
inline unsigned walking_blocks(int64_t items) {
  constexpr int kBlocksPerMultiprocessor = 4;
  const int64_t most = int64_t{kBlocksPerMultiprocessor} * current_device().multiprocessors;
  return static_cast<unsigned>(std::clamp<int64_t>(blocks_for(items), 1, most));
}

// visit(i) for every i from begin to end, in a thread of any grid of kBlockThreads threads a block.
template <int kBlockThreads, typename Visit>
__device__ __forceinline__ void sweep_grid(int64_t begin, int64_t end, const Visit& visit) {
  const int64_t stride = int64_t{gridDim.x} * kBlockThreads;
#pragma unroll 1
  for (int64_t i = begin + int64_t{blockIdx.x} * kBlockThreads + threadIdx.x; i < end; i += stride) visit(i);
}

// One block for p items: no more warps than they fill, for all wait at every barrier.
constexpr int kMostThreads = 768;  // with more, registers spill

inline Shape one_block(int64_t p, size_t shared = 0) {
  return {1, static_cast<unsigned>(p < 32 ? 32 : (p < kMostThreads ? (p + 31) / 32 * 32 : kMostThreads)),
          shared};
}

// Launches a kernel, unless its grid is empty, and reports what the launch itself got wrong. What a kernel
// does wrong shows at the next synchronisation.
template <typename... Parameters>
void launch(const char* name, void (*kernel)(Parameters...), const Shape& shape, cudaStream_t stream,
            const std::type_identity_t<Parameters>&... arguments) {
  if (shape.blocks.x == 0) return;
  if (shape.shared) allow_dynamic_shared(reinterpret_cast<const void*>(kernel));
  kernel<<<shape.blocks, shape.threads, shape.shared, stream>>>(arguments...);
  check(cudaGetLastError(), name);
}

}  // namespace alrp::cuda

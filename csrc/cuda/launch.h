// Errors and sizes of launches.
#pragma once

#include <cuda_runtime.h>

#include <climits>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace alrp::cuda {

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("alrp_cuda: ") + what + ": " + cudaGetErrorString(error));
}

// After a launch: reports what the launch itself got wrong. What a kernel does wrong shows at the next
// synchronisation.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

constexpr int kThreads = 256;

inline int64_t blocks_for(int64_t items) { return (items + kThreads - 1) / kThreads; }

// The grid that has a thread for each item. What no grid can hold is refused: cut to 32 bits, the number of
// blocks could be one that is launched and leaves items out.
inline unsigned grid_for(int64_t items) {
  const int64_t blocks = blocks_for(items);
  if (blocks > INT_MAX)
    throw std::runtime_error("alrp_cuda: " + std::to_string(items) + " elements are more than a grid holds");
  return static_cast<unsigned>(blocks);
}

// Threads of a kernel that works on p items with one block: no more warps than they fill, for all wait at every barrier.
constexpr int kOneBlock = 768;  // with more, registers spill

inline unsigned threads_for(int64_t p) {
  return static_cast<unsigned>(p < 32 ? 32 : (p < kOneBlock ? (p + 31) / 32 * 32 : kOneBlock));
}

}  // namespace alrp::cuda

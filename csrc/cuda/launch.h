// Errors and sizes of launches.
#pragma once

#include <cuda_runtime.h>

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

}  // namespace alrp::cuda

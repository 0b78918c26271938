// The CUDA backend of the kernels in this library, for the device scope in device.cpp.
#include "cuda/backend.h"

// On one stream; the backend holds nothing else.
extern "C" alrp::Backend* alrp_backend(cudaStream_t stream) {
  static alrp::cuda::CudaBackend backend(stream);
  return &backend;
}

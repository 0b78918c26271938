// A source without kernels: compiled by the host's compiler, linked into the same library.
#include <cuda_runtime_api.h>

extern "C" int synchronize(cudaStream_t stream) {
  const cudaError_t e = cudaStreamSynchronize(stream);
  return e == cudaSuccess ? cudaDeviceSynchronize() : e;
}

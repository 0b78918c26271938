// Launch functions as a library has them: errors are returned, nothing is printed.
#include <cstdint>

__device__ int offset = 3;
__constant__ float factors[2] = {1.0f, 2.0f};

namespace {

template <class T>
__global__ void add_offset(const T* x, T* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i] * static_cast<T>(factors[1]) + static_cast<T>(offset);
}

// Reverses the numbers of the block through dynamic shared memory.
__global__ void reverse(int* x, int n) {
  extern __shared__ int buffer[];
  for (int i = threadIdx.x; i < n; i += blockDim.x) buffer[i] = x[i];
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = buffer[n - 1 - i];
}

}  // namespace

extern "C" int add_offset_float(const float* x, float* y, int n, cudaStream_t stream) {
  add_offset<<<(n + 127) / 128, 128, 0, stream>>>(x, y, n);
  return cudaGetLastError();
}

extern "C" int add_offset_double(const double* x, double* y, int n, cudaStream_t stream) {
  add_offset<<<(n + 127) / 128, 128, 0, stream>>>(x, y, n);
  return cudaGetLastError();
}

extern "C" int set_offset(int value) { return cudaMemcpyToSymbol(offset, &value, sizeof value); }

extern "C" int reverse_numbers(int* x, int n, bool allow_large) {
  const size_t bytes = n * sizeof(int);
  if (allow_large) {
    const cudaError_t e = cudaFuncSetAttribute(reverse, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e != cudaSuccess) return e;
  }
  reverse<<<1, 256, bytes>>>(x, n);
  return cudaGetLastError();
}

extern "C" int launch_too_large() {
  reverse<<<1, 2048>>>(nullptr, 0);
  return cudaGetLastError();
}

// Through memory of its own; synchronises the host three times: copy, stream, free.
extern "C" int round_trip(const float* x, float* y, int n, cudaStream_t stream) {
  float* device = nullptr;
  if (cudaMalloc(&device, n * sizeof(float)) != cudaSuccess) return -1;
  cudaMemsetAsync(device, 0, n * sizeof(float), stream);
  add_offset<<<(n + 127) / 128, 128, 0, stream>>>(x, device, n);
  cudaMemcpy(y, device, n * sizeof(float), cudaMemcpyDeviceToHost);
  cudaStreamSynchronize(stream);
  cudaFree(device);
  return cudaGetLastError();
}

extern "C" int capability() {
  int device = -1, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return major * 10 + minor;
}

extern "C" int multiprocessors() {
  int device = -1, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

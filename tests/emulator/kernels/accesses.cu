// Patterns whose counters are known beforehand.
extern "C" __global__ void copy(const float* x, float* y, int stride) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = x[i * stride];
}

// 16 bytes a lane
extern "C" __global__ void copy_wide(const float4* x, float4* y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = x[i];
}

// Each group of `same` neighbouring threads adds to one address.
extern "C" __global__ void add_global(unsigned* sums, int same) {
  atomicAdd(&sums[(blockIdx.x * blockDim.x + threadIdx.x) / same], 1u);
}

extern "C" __global__ void add_shared(unsigned* sums, int same) {
  __shared__ unsigned partial[256];
  partial[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&partial[threadIdx.x / same], 1u);
  __syncthreads();
  atomicAdd(&sums[threadIdx.x], partial[threadIdx.x]);
}

// Reads and adds up words `stride` apart, and loads 16 bytes a lane.
extern "C" __global__ void meet_in_banks(float* out, int stride) {
  __shared__ __align__(16) float words[32 * 32];
  __shared__ unsigned sums[32 * 32];
  for (int i = threadIdx.x; i < 32 * 32; i += blockDim.x) words[i] = 1, sums[i] = 0;
  __syncthreads();
  const int own = threadIdx.x % 32 * stride;
  const float4 four = reinterpret_cast<const float4*>(words)[threadIdx.x % 32];
  const float word = words[own];
  atomicAdd(&sums[own], 1u);
  out[threadIdx.x] = word + four.x + four.y + four.z + four.w;
}

// Lane i loads i + 1 numbers in an inner loop, then all load one together: `rounds` times.
extern "C" __global__ void triangle(const float* x, float* y, int rounds) {
  float sum = 0;
  for (int r = 0; r < rounds; ++r) {
#pragma unroll 1
    for (int k = 0; k <= threadIdx.x; ++k) sum += x[k * 32 + threadIdx.x];
    sum += x[r * 32 + threadIdx.x];
  }
  y[threadIdx.x] = sum;
}

extern "C" __global__ void branch(float* y, int bound) {
  if (threadIdx.x < bound) y[threadIdx.x] = 1.0f;
}

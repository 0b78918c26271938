// The inner loop of an O(N P) algorithm in double precision, positives in tiles of shared memory: a measure
// of the emulator's speed.
#include <cstdint>

constexpr int TILE = 256;

// counts[j] = sum over the positives i of clamp((negatives[j] - positives[i]) * scale + 0.5, 0, 1)
extern "C" __global__ void __launch_bounds__(TILE)
    count_pairs(const double* __restrict__ negatives, int n, const double* __restrict__ positives, int p,
                double scale, double* __restrict__ counts) {
  __shared__ double tile[TILE];
  const int j = blockIdx.x * blockDim.x + threadIdx.x;
  const double score = j < n ? negatives[j] : 0.0;
  double sum = 0.0;
  for (int start = 0; start < p; start += TILE) {
    const int i = start + threadIdx.x;
    tile[threadIdx.x] = i < p ? positives[i] : __longlong_as_double(0x7ff0000000000000);
    __syncthreads();
    for (int k = 0; k < TILE; ++k) sum += fmin(fmax(fma(score - tile[k], scale, 0.5), 0.0), 1.0);
    __syncthreads();
  }
  if (j < n) counts[j] = sum;
}

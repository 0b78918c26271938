// A histogram by binary search: grid-stride loop, dynamic shared memory, shared and global atomics.
#include <cstdint>
extern "C" __global__ void hist_bsearch(const float* __restrict__ x, int n, const float* __restrict__ edges,
                                        int nb, unsigned* __restrict__ gcount, float* __restrict__ gsum,
                                        double* __restrict__ gdsum) {
  extern __shared__ float dyn[];
  float* se = dyn;                      // nb+1 edges
  float* ss = dyn + nb + 1;             // nb sums
  unsigned* sc = (unsigned*)(ss + nb);  // nb counts
  for (int i = threadIdx.x; i <= nb; i += blockDim.x) se[i] = edges[i];
  for (int i = threadIdx.x; i < nb; i += blockDim.x) {
    ss[i] = 0.f;
    sc[i] = 0u;
  }
  __syncthreads();
  double acc = 0.0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    float v = __ldg(x + i);
    acc += (double)v;
    if (!(v >= se[0]) || !(v < se[nb])) continue;
    int lo = 0, hi = nb;
    while (hi - lo > 1) {
      int m = (lo + hi) >> 1;
      if (se[m] <= v)
        lo = m;
      else
        hi = m;
    }
    atomicAdd(&sc[lo], 1u);
    atomicAdd(&ss[lo], v);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < nb; i += blockDim.x) {
    if (sc[i]) {
      atomicAdd(&gcount[i], sc[i]);
      atomicAdd(&gsum[i], ss[i]);
    }
  }
  atomicAdd(gdsum, acc);
}

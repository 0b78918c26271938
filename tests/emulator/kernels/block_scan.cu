// A block scan: warp shuffles, barriers, ballots, warp reductions.
#include <cstdint>
template <typename T>
__device__ T warp_incl(T v) {
  int lane = threadIdx.x & 31;
#pragma unroll
  for (int o = 1; o < 32; o <<= 1) {
    T u = __shfl_up_sync(0xffffffffu, v, o);
    if (lane >= o) v += u;
  }
  return v;
}
extern "C" __global__ void block_scan(const float* x, float* incl, double* bsum, int* nneg, unsigned* redu,
                                      int n) {
  __shared__ float wtot[32];
  __shared__ int wneg[32];
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  int lane = threadIdx.x & 31, w = threadIdx.x >> 5, nw = blockDim.x >> 5;
  float v = i < n ? x[i] : 0.f;
  unsigned neg = __ballot_sync(0xffffffffu, v < 0.f);
  if (lane == 0) wneg[w] = __popc(neg);
  float s = warp_incl(v);
  if (lane == 31) wtot[w] = s;
  __syncthreads();
  if (w == 0) {
    float t = lane < nw ? wtot[lane] : 0.f;
    t = warp_incl(t);
    wtot[lane] = t;
  }
  __syncthreads();
  if (w > 0) s += wtot[w - 1];
  if (i < n) incl[i] = s;
  // double reduction by shfl_down / xor
  double d = v;
  for (int o = 16; o; o >>= 1) d += __shfl_down_sync(0xffffffffu, d, o);
  if (lane == 0) atomicAdd(&bsum[blockIdx.x], d);
  if (threadIdx.x == 0) {
    int c = 0;
    for (int k = 0; k < nw; ++k) c += wneg[k];
    atomicAdd(nneg, c);
  }
#if __CUDA_ARCH__ >= 800
  unsigned r = __reduce_add_sync(0xffffffffu, (unsigned)lane + 1u);
#else
  unsigned r = lane + 1;
  for (int o = 16; o; o >>= 1) r += __shfl_xor_sync(0xffffffffu, r, o);
#endif
  if (lane == 0 && i < n) redu[i >> 5] = r;
}

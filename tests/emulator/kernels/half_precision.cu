// Half precision and bfloat16, 128-bit loads, double-precision and transcendental functions.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
extern "C" __global__ void half_acc(const __half* h, const __nv_bfloat16* b, const float4* f4, int n4,
                                    double* out, __half* ho, __nv_bfloat16* bo, float* elog) {
  double a0 = 0, a1 = 0, a2 = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n4; i += gridDim.x * blockDim.x) {
    float4 f = f4[i];
    const __half2* h2 = reinterpret_cast<const __half2*>(h) + 2 * i;
    const __nv_bfloat162* b2 = reinterpret_cast<const __nv_bfloat162*>(b) + 2 * i;
    float2 hx = __half22float2(h2[0]), hy = __half22float2(h2[1]);
    float2 bx = __bfloat1622float2(b2[0]), by = __bfloat1622float2(b2[1]);
    a0 += (double)hx.x * f.x + (double)hx.y * f.y + (double)hy.x * f.z + (double)hy.y * f.w;
    a1 += (double)bx.x * f.x + (double)bx.y * f.y + (double)by.x * f.z + (double)by.y * f.w;
    a2 += exp((double)f.x) + log1p(fabs((double)f.y)) + sqrt(fabs((double)f.z)) / (1.0 + f.w * (double)f.w);
    ho[4 * i] = __float2half_rn(f.x);
    ho[4 * i + 1] = __float2half_rn(f.y);
    ho[4 * i + 2] = __hadd(__float2half(f.z), h2[1].x);
    ho[4 * i + 3] = __hmul(__float2half(f.w), h2[1].y);
    bo[4 * i] = __float2bfloat16_rn(f.x);
    bo[4 * i + 1] = __float2bfloat16_rn(f.y);
    bo[4 * i + 2] = __float2bfloat16_rz(f.z);
    bo[4 * i + 3] = __hadd(__float2bfloat16(f.w), b2[1].y);
    elog[4 * i] = expf(f.x);
    elog[4 * i + 1] = logf(fabsf(f.y));
    elog[4 * i + 2] = 1.f / (1.f + __expf(-f.z));
    elog[4 * i + 3] = tanhf(f.w);
  }
  __shared__ double red[3][256];
  red[0][threadIdx.x] = a0;
  red[1][threadIdx.x] = a1;
  red[2][threadIdx.x] = a2;
  __syncthreads();
  for (int s = blockDim.x >> 1; s; s >>= 1) {
    if (threadIdx.x < s)
      for (int k = 0; k < 3; ++k) red[k][threadIdx.x] += red[k][threadIdx.x + s];
    __syncthreads();
  }
  if (threadIdx.x < 3) atomicAdd(&out[threadIdx.x], red[threadIdx.x][0]);
}

// Kernels that between them use most of what CUDA C++ compiles to: integer and floating-point intrinsics,
// recursion, switches, printf, atomics, warp intrinsics, cooperative groups, and block-wide algorithms of
// CUB.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdio>
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/warp/warp_scan.cuh>
namespace cg = cooperative_groups;
__constant__ float ctab[4] = {1.5f, -2.f, 3.25f, 0.125f};
__device__ int gcounter = 5;
__device__ unsigned done_ctr = 0;
struct Par {
  int n;
  float a;
  double b;
  const int* p;
  unsigned char c;
};
extern "C" __global__ void ints(const unsigned* a, const unsigned* b, unsigned* o, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  unsigned x = a[i], y = b[i];
  unsigned* q = o + i * 24;
  int sx = (int)x, sy = (int)y;
  q[0] = __brev(x);
  q[1] = __clz(x);
  q[2] = __ffs(x);
  q[3] = __popc(x);
  q[4] = __byte_perm(x, y, y & 0x7777);
  q[5] = __funnelshift_l(x, y, y);
  q[6] = __funnelshift_rc(x, y, y & 63);
  q[7] = __umulhi(x, y);
  q[8] = (unsigned)__mulhi(sx, sy);
  unsigned long long X = ((unsigned long long)x << 32) | y, Y = ((unsigned long long)y << 32) | x;
  q[9] = (unsigned)(__umul64hi(X, Y) >> 7);
  q[10] = x / (y | 1);
  q[11] = x % (y | 1);
  q[12] = (unsigned)(sx / (sy | 1));
  q[13] = (unsigned)(sx % (sy | 1));
  q[14] = (unsigned)(X / (Y >> 40 | 1));
  q[15] = (unsigned)max(sx, sy);
  q[16] = min(x, y);
  q[17] = (unsigned)(sx >> (y & 31));
  q[18] = __sad(sx, sy, 7);
  q[19] = __dp4a(sx, sy, 3);
  q[20] = (unsigned)__clzll(X >> (y & 63));
  q[21] = (unsigned)((long long)X % ((long long)(Y >> 33) | 1));
  q[22] = (unsigned)abs(sx);
  q[23] = __vadd4(x, y);
}
__device__ int bfma_(float x, float y) {
  __nv_bfloat16 a = __float2bfloat16(x), b = __float2bfloat16(y), c = __float2bfloat16(0.7f);
  return __bfloat16_as_ushort(
      __float2bfloat16(__fmaf_rn(__bfloat162float(a), __bfloat162float(b), __bfloat162float(c))));
}
extern "C" __global__ void flts(const float* a, const float* b, float* o, int* oi, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float x = a[i], y = b[i];
  float* q = o + i * 16;
  int* r = oi + i * 12;
  q[0] = __fmaf_rz(x, y, 0.3f);
  q[1] = __fadd_ru(x, y);
  q[2] = __fmul_rd(x, y);
  q[3] = x / y;
  q[4] = sqrtf(fabsf(x));
  q[5] = fminf(x, y);
  q[6] = fmaxf(x, y);
  q[7] = rintf(x * 10);
  q[8] = floorf(x * 3);
  q[9] = ceilf(y * 3);
  q[10] = fmodf(x, y);
  q[11] = sinf(x * 20);
  q[12] = powf(fabsf(x), y);
  q[13] = erff(x);
  q[14] = __double2float_rd((double)x / 3.0);
  q[15] = rsqrtf(fabsf(x));
  r[0] = __float2int_rn(x * 100);
  r[1] = __float2int_rd(x * 100);
  r[2] = (int)(x * 1e10f);
  r[3] = (int)(unsigned)(x * 100);
  r[4] = __float_as_int(x);
  r[5] = (int)(long long)(x * 1e12);
  r[6] = isnan(x / (y - y));
  r[7] = (x < y) ? 1 : 0;
  r[8] = __half_as_ushort(__hfma(__float2half(x), __float2half(y), __float2half(0.7f)));
  r[9] = bfma_(x, y);
  __half2 h = __hadd2(__floats2half2_rn(x, y), __floats2half2_rn(y, 1.f));
  r[10] = *(int*)&h;
  r[11] = __half_as_ushort(__float2half_rd(x));
}
__device__ __noinline__ double recur(double x, int k) {
  double loc[8];
  for (int i = 0; i < 8; ++i) loc[i] = x * i;
  return k <= 0 ? loc[(int)x & 7] : recur(x + 1, k - 1) + loc[k & 7];
}
extern "C" __global__ void misc(Par p, double* out, int* oi) {
  int t = threadIdx.x + threadIdx.y * blockDim.x + threadIdx.z * blockDim.x * blockDim.y;
  int g = t + (blockIdx.x + blockIdx.y * gridDim.x) * blockDim.x * blockDim.y * blockDim.z;
  if (g >= p.n) return;
  out[g] = recur(p.p[g], p.c) * p.a + p.b + ctab[g & 3];
  int v;
  switch (p.p[g] % 7) {
    case 0:
      v = 11;
      break;
    case 1:
      v = __popc(g);
      break;
    case 2:
      v = g * g;
      break;
    case 3:
      v = -g;
      break;
    case 4:
      v = g ^ 77;
      break;
    case 5:
      v = 3;
      break;
    default:
      v = g << 2;
  }
  oi[g] = v;
  if (g == 3) printf("hello %d %f %s %lld\n", g, 2.5, "str", 1ll << 40);
  atomicAdd(&gcounter, 1);
}
extern "C" __global__ void atoms(int* a, unsigned* u, float* f, double* d, unsigned long long* ull, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  atomicMax(&a[0], (i * 7919) % 10007);
  atomicMin(&a[1], -((i * 7919) % 10007));
  atomicExch(&a[2], i);
  atomicInc(&u[0], 9);
  atomicDec(&u[1], 6);
  atomicXor(&u[2], i);
  atomicOr(&u[3], 1u << (i & 31));
  atomicAnd(&u[4], ~(1u << (i & 7)));
  atomicAdd(&ull[0], (unsigned long long)i);
  atomicMax(&ull[1], (unsigned long long)i << 33);
  atomicAdd(f, 1.f);
  unsigned long long* q = (unsigned long long*)d;
  unsigned long long o = *q, as;
  do {
    as = o;
    o = atomicCAS(q, as, __double_as_longlong(fmax(__longlong_as_double(as), (double)((i * 31) % 997))));
  } while (as != o);
}
extern "C" __global__ void warps(const int* x, int* o, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  int v = i < n ? x[i] : 0;
  auto w = cg::tiled_partition<32>(cg::this_thread_block());
  auto t8 = cg::tiled_partition<8>(cg::this_thread_block());
  unsigned m = __match_any_sync(0xffffffffu, v & 3);
  int pr;
  __match_all_sync(0xffffffffu, v >> 30, &pr);
  int s8 = cg::reduce(t8, v, cg::plus<int>());
  int any = __any_sync(~0u, v == 5);
  int all = __all_sync(~0u, v >= 0);
  int idx = __shfl_sync(~0u, v, (threadIdx.x * 5) & 31);
  int up4 = __shfl_up_sync(~0u, v, 1, 4);
  int cnt = __syncthreads_count(v & 1);
  int sor = __syncthreads_or(v == 12345678);
  w.sync();
  if (i < n) {
    int* q = o + i * 9;
    q[0] = m;
    q[1] = pr;
    q[2] = s8;
    q[3] = any;
    q[4] = all;
    q[5] = idx;
    q[6] = up4;
    q[7] = cnt;
    q[8] = sor;
  }
}
extern "C" __global__ void lastblk(const float* x, int n, double* part, double* out) {
  __shared__ typename cub::BlockReduce<double, 128>::TempStorage tmp;
  __shared__ bool last;
  double s = 0;
  for (int i = blockIdx.x * 128 + threadIdx.x; i < n; i += gridDim.x * 128) s += x[i];
  s = cub::BlockReduce<double, 128>(tmp).Sum(s);
  if (threadIdx.x == 0) {
    part[blockIdx.x] = s;
    __threadfence();
    last = atomicAdd(&done_ctr, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last) {
    double t = 0;
    for (int i = threadIdx.x; i < gridDim.x; i += 128) t += ((volatile double*)part)[i];
    __syncthreads();
    t = cub::BlockReduce<double, 128>(tmp).Sum(t);
    if (threadIdx.x == 0) {
      *out = t;
      done_ctr = 0;
    }
  }
}
extern "C" __global__ void cubs(const int* x, int* scan, unsigned* sorted, int* vals, int n) {
  typedef cub::BlockScan<int, 128> BS;
  typedef cub::BlockRadixSort<unsigned, 128, 4, int> RS;
  __shared__ union {
    typename BS::TempStorage a;
    typename RS::TempStorage b;
  } t;
  int it[4];
  unsigned k[4];
  int v[4];
  int base = (blockIdx.x * 128 + threadIdx.x) * 4;
  for (int j = 0; j < 4; ++j) {
    it[j] = x[base + j];
    k[j] = (unsigned)x[base + j];
    v[j] = base + j;
  }
  BS(t.a).ExclusiveSum(it, it);
  __syncthreads();
  RS(t.b).Sort(k, v);
  for (int j = 0; j < 4; ++j) {
    scan[base + j] = it[j];
    sorted[base + j] = k[j];
    vals[base + j] = v[j];
  }
}
// single-pass chained scan: block b spins on block b-1 (needs co-residency when blocks start out of order)
extern "C" __global__ void lookback(const int* x, int* o, volatile int* flag, int n) {
  __shared__ int pre;
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  typedef cub::BlockScan<int, 64> BS;
  __shared__ typename BS::TempStorage t;
  int s, tot;
  BS(t).InclusiveSum(i < n ? x[i] : 0, s, tot);
  if (threadIdx.x == 0) {
    int p = 0;
    if (blockIdx.x) {
      while ((p = flag[blockIdx.x - 1]) == -1) {
      }
    }
    pre = p;
    __threadfence();
    flag[blockIdx.x] = p + tot;
  }
  __syncthreads();
  if (i < n) o[i] = s + pre;
}

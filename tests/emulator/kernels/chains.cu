// Chains of dependent loads whose length is known, for test_counters.py.

// Each address comes from the load before.
extern "C" __global__ void chase_global(const int* next, int* y, int steps) {
  int at = threadIdx.x;
#pragma unroll 1
  for (int k = 0; k < steps; ++k) at = next[at];
  y[blockIdx.x * blockDim.x + threadIdx.x] = at;
}

extern "C" __global__ void chase_shared(const int* next, int* y, int steps) {
  __shared__ int own[64];
  own[threadIdx.x] = next[threadIdx.x];
  __syncthreads();
  int at = threadIdx.x;
#pragma unroll 1
  for (int k = 0; k < steps; ++k) at = own[at];
  y[threadIdx.x] = at;
}

// The space is known to nobody before the kernel runs.
extern "C" __global__ void chase_either(const int* next, int* y, int steps, int shared) {
  __shared__ int own[64];
  own[threadIdx.x] = next[threadIdx.x];
  __syncthreads();
  const int* from = shared ? own : next;
  asm volatile("" : "+l"(from));
  int at = threadIdx.x;
#pragma unroll 1
  for (int k = 0; k < steps; ++k) at = from[at];
  y[threadIdx.x] = at;
}

// Four loads at once, `steps` times.
extern "C" __global__ void four_at_once(const int* __restrict__ x, int* y, int steps) {
  int sum = 0;
#pragma unroll 1
  for (int k = 0; k < steps; ++k) {
    const int* from = x + 4 * k;
    sum += from[0] * from[1] + from[2] * from[3];
  }
  y[threadIdx.x] = sum;
}

// Each round loads what the next one uses.
extern "C" __global__ void load_ahead(const int* __restrict__ x, int* y, int steps) {
  int sum = 1, ahead = x[0];
#pragma unroll 1
  for (int k = 1; k <= steps; ++k) {
    const int now = ahead;
    ahead = x[k];
    sum = sum * now + k;
  }
  y[threadIdx.x] = sum + ahead;
}

// Two loads in blocks of their own, each left out by some lanes, and used together.
extern "C" __global__ void two_branches(const int* x, int* y, int bound) {
  volatile int* none = y;
  int a = 0, b = 0;
  if (threadIdx.x < bound) {
    none[threadIdx.x] = 1;
    a = x[threadIdx.x];
  }
  if (threadIdx.x > bound) {
    none[threadIdx.x] = 2;
    b = x[threadIdx.x - 1];
  }
  y[threadIdx.x] = a * b;
}

// Between barriers another warp of the two has most to do, `first` and `second` loads.
extern "C" __global__ void two_phases(const int* next, int* y, int first, int second) {
  const int warp = threadIdx.x / 32;
  int at = threadIdx.x;
#pragma unroll 1
  for (int k = 0; k < (warp == 0 ? first : 0); ++k) at = next[at];
  __syncthreads();
#pragma unroll 1
  for (int k = 0; k < (warp == 1 ? second : 0); ++k) at = next[at];
  y[threadIdx.x] = at;
}

// An atomic addition is waited for where its old value is used.
extern "C" __global__ void add_in_turn(int* sum, int* y, int steps, int use) {
  int old = 0;
#pragma unroll 1
  for (int k = 0; k < steps; ++k) {
    if (use)
      old = atomicAdd(sum + (old & 1), 2);
    else
      atomicAdd(sum, 2);
  }
  y[threadIdx.x] = old;
}

// Sums over pairs with the positives, O(P^2) or O(P N): what each thread adds up comes by tiles through
// shared memory.
#pragma once

#include "array.cuh"

namespace alrp::cuda {

struct Positives {
  const double* score;  // (p) ascending
  int64_t p;
  Step h;

  Positives(const Input& input, const Tables& tables)
      : score(tables.score), p(input.p), h(make_step(input.delta)) {}
};

// visit(read(k), k) for k from begin to end, ascending; past the end visit() gets `nothing`, which must add
// nothing. kLanes = 32: a lane of a warp visits every 32nd k, its own. All kTile threads of the block call.
template <int kTile, int kLanes = 1, typename Item, typename Read, typename Visit>
__device__ __forceinline__ void sweep(int64_t begin, int64_t end, const Item& nothing, const Read& read,
                                      const Visit& visit) {
  __shared__ Item tile[kTile];
#pragma unroll 1
  for (int64_t base = begin; base < end; base += kTile) {
    const int64_t own = base + threadIdx.x;
    tile[threadIdx.x] = own < end ? read(own) : nothing;
    __syncthreads();
#pragma unroll 8
    for (int t = threadIdx.x % kLanes; t < kTile; t += kLanes) {
      const Item item = tile[t];  // one load
      visit(item, base + t);
    }
    __syncthreads();  // before the next tile overwrites what is being read
  }
}

}  // namespace alrp::cuda

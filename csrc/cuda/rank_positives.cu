// The first stage of the sorted form: the positives, sorted by counting; by CUB where they are many.
#include "../arena.h"
#include "../keys.h"
#include "array.cuh"
#include "block.cuh"
#include "launch.cuh"
#include "sorted.cuh"
#include "stages.h"

namespace alrp::cuda::sorted {
namespace {

constexpr int64_t kMostCounted = 8192;         // positives that are compared pair by pair
constexpr int kOwn = 4;                        // that a warp ranks: each load serves all of them
constexpr int kRanked = kThreads / 32 * kOwn;  // that a block does

// A Listed as words: its key in x and y, its flat index in z and w.
__device__ __forceinline__ uint4 words_of(const Listed* list, int i) {
  return reinterpret_cast<const uint4*>(list)[i];
}

// Counts, downwards, whether `other` comes before `own` by score, ties by descending index, and whether its index is
// higher. The borrow of a subtraction is a comparison: of indices, and with it that of keys.
__device__ __forceinline__ void compare(const uint4& other, const uint4& own, uint32_t& below,
                                        uint32_t& later) {
  asm("{ .reg .u32 rest;"
      "sub.cc.u32 rest, %2, %3; subc.cc.u32 rest, %4, %5; subc.u32 %1, %1, 0;"
      "subc.cc.u32 rest, %6, %7; subc.cc.u32 rest, %8, %9; subc.u32 %0, %0, 0; }"
      : "+r"(below), "+r"(later)
      : "r"(own.z), "r"(other.z), "r"(own.w), "r"(other.w), "r"(other.x), "r"(own.x), "r"(other.y),
        "r"(own.y));
}

bool is_counted(const Input& input) { return input.p <= kMostCounted; }

// rank_positives: the positives that find listed, in order. Those before one are counted: no sort, no barrier,
// and no load that waits for another.
//   in       list and status.found of find
//   out      tables.index, .score, place; bins, emptied
//   launch   per_item(p, kThreads, kRanked); O(p^2) work, which a warp shares
__global__ void __launch_bounds__(kThreads)
    rank_positives(const Listed* list, const Status* status, Tables tables, int64_t* place, SortedTables to) {
  sweep_grid<kThreads>(0, to.bin_vectors(),
                       [&](int64_t k) { static_cast<ulonglong2*>(to.bins)[k] = {0, 0}; });
  const int lane = threadIdx.x & 31, p = static_cast<int>(to.p);
  const int listed = static_cast<int>(min(status->found, to.p));
  const int first = (blockIdx.x * kThreads + threadIdx.x) / 32 * kOwn;
  if (first >= p) return;
  uint4 own[kOwn]{};
  uint32_t below[kOwn]{}, later[kOwn]{};
  if (first < listed) {
#pragma unroll
    for (int u = 0; u < kOwn; ++u) own[u] = words_of(list, min(first + u, listed - 1));
  }
#pragma unroll 4
  for (int j = lane; j < listed; j += 32) {
    const uint4 other = words_of(list, j);
#pragma unroll
    for (int u = 0; u < kOwn; ++u) compare(other, own[u], below[u], later[u]);
  }
  uint32_t mine = 0;  // of lane u, what was counted for own[u]
#pragma unroll
  for (int u = 0; u < kOwn; ++u) {
    const uint32_t both = warp_sum(-below[u] + (-later[u] << 16));  // each at most kMostCounted
    if (lane == u) mine = both;
  }
  const int i = first + lane;
  if (lane >= kOwn || i >= p) return;
  const bool found = i < listed;
  const int r = found ? mine & 0xffff : i;
  place[r] = found ? listed - 1 - static_cast<int>(mine >> 16) : i;
  tables.index[r] = found ? list[i].flat : -1;
  tables.score[r] = found ? score_of(list[i].key) : HUGE_VAL;  // scores have to ascend
}

}  // namespace

size_t table_bytes(const Input& input) { return SortedTables(input, nullptr).bytes; }

size_t scratch_bytes(const Input& input, cudaStream_t stream) {
  if (!is_counted(input)) return positives_scratch_bytes(input, stream);
  Arena arena;
  arena.take<Listed>(input.p);
  return arena.bytes();
}

void find(const Input& input, const Tables& tables, int64_t* place, Status* status, void* scratch,
          cudaStream_t stream) {
  if (!is_counted(input)) {
    find_positives(input, tables, place, status, scratch, stream);
    return lay_out(input, tables, status, stream);
  }
  auto* list = static_cast<Listed*>(scratch);
  check(cudaMemsetAsync(status, 0, sizeof(Status), stream), "memset of status");
  list_positives(input, list, status, stream);
  launch("rank_positives", rank_positives, per_item(input.p, kThreads, kRanked), stream, list, status, tables,
         place, SortedTables(input, tables.device));
  build(input, tables, status, stream);
}

void lay_out(const Input& input, const Tables& tables, const Status* status, cudaStream_t stream) {
  const SortedTables to(input, tables.device);
  check(cudaMemsetAsync(to.bins, 0, to.bin_vectors() * sizeof(ulonglong2), stream), "memset of bins");
  build(input, tables, status, stream);
}

}  // namespace alrp::cuda::sorted

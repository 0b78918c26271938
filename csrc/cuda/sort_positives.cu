// The first stage of the sorted form: the positives, sorted, and the positions that their scores ask for.
#include "../arena.h"
#include "../keys.h"
#include "array.cuh"
#include "block.cuh"
#include "launch.cuh"
#include "sorted.cuh"
#include "stages.h"

namespace alrp::cuda::sorted {
namespace {

constexpr int64_t kMostInBlock = 8192;  // positives that one block sorts
constexpr int kItemBytes = 12;          // of a key and a value

// The scratch of a sort in one block: flat indices as find lists them, and `size` (a power of two) keys and
// values; null keys: in dynamic shared memory. A size of 0: the positives are sorted already.
struct BlockScratch {
  int64_t* list = nullptr;
  uint64_t* keys = nullptr;
  uint32_t* values = nullptr;
  int size = 0;
};

BlockScratch take_scratch(const Input& input, Arena& arena) {
  if (input.p > kMostInBlock) return {};
  int size = 32;
  while (size < input.p) size *= 2;
  return {arena.take<int64_t>(size), arena.take<uint64_t>(size), arena.take<uint32_t>(size), size};
}

// Sorts what find listed: by flat index, which gives places, then by score, ties by descending place. Returns
// whether a score is NaN.
__device__ bool sort_in_block(const Input& input, const BlockScratch& work, int listed, const Tables& tables,
                              int64_t* place) {
  // The key of a float has room for a place, and keys sort alone.
  constexpr uint64_t kPlace = (uint64_t{1} << kFloatRoom) - 1;
  const bool packed = input.logits.dtype != Dtype::kFloat64;
  const int p = static_cast<int>(input.p);
  const auto& [list, keys, values, size] = work;
#pragma unroll 1
  for (int i = threadIdx.x; i < size; i += blockDim.x)
    keys[i] = i < listed ? static_cast<uint64_t>(list[i]) : ~uint64_t{0};
  bitonic_sort<false>(keys, nullptr, size);
#pragma unroll 1
  for (int i = threadIdx.x; i < listed; i += blockDim.x) list[i] = static_cast<int64_t>(keys[i]);
  __syncthreads();
  bool any_nan = false;
#pragma unroll 1
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const double score = i < listed ? load(input, list[i]) : 0.0;
    const bool nan = score != score;
    any_nan |= nan;
    const uint64_t key = i < listed ? key_of(nan ? 0.0 : score) : ~uint64_t{0};
    const uint32_t value = i < p ? p - 1 - i : kPlace;
    keys[i] = packed ? (key & ~kPlace) | value : key;
    if (!packed) values[i] = value;
  }
  if (packed)
    bitonic_sort<false>(keys, nullptr, size);
  else
    bitonic_sort<true>(keys, values, size);
#pragma unroll 1
  for (int r = threadIdx.x; r < p; r += blockDim.x) {
    const uint64_t key = keys[r];
    const int at = p - 1 - static_cast<int>(packed ? key & kPlace : values[r]);
    place[r] = at;
    tables.index[r] = at < listed ? list[at] : -1;
    const uint64_t plain = !packed ? key : (key >> 63 ? key & ~kPlace : key | kPlace);
    tables.score[r] = at < listed ? score_of(plain) : HUGE_VAL;  // scores have to ascend
  }
  return __syncthreads_or(any_nan);
}

// Positions of the positives, and empty bins.
template <typename Position>
__device__ void write_positions(const Position& position, const double* score, int p,
                                const SortedTables& to) {
  auto* x = static_cast<typename Position::Int*>(to.position);
  auto* bins = static_cast<Bin<typename Position::Sum>*>(to.bins);
#pragma unroll 1
  for (int i = threadIdx.x; i < p; i += blockDim.x) x[i] = position.of(score[i]);
#pragma unroll 1
  for (int m = threadIdx.x; m <= 2 * p; m += blockDim.x) bins[m] = {0, 0};
}

// The clusters of Wide; returns how many.
__device__ int64_t write_clusters(Wide wide, const double* score, int p, double delta, Cluster* clusters) {
  int32_t count = 0;
#pragma unroll 1
  for (int base = 0; base < p; base += blockDim.x) {
    const int i = base + threadIdx.x;
    const bool begins = i < p && (i == 0 || !Wide::joins(score[i - 1], score[i], delta));
    const int32_t id = carried_scan(static_cast<int32_t>(begins), count, Plus()) - 1;
    if (begins) {
      clusters[id].origin = score[i];
      clusters[id].from = i ? Wide::from_between(score[i - 1], score[i], delta)
                            : __longlong_as_double(static_cast<long long>(0xfff0000000000000ULL));
    }
    // The last one's score, until every origin is known.
    if (i < p && (i + 1 == p || !Wide::joins(score[i], score[i + 1], delta)))
      clusters[id].width = static_cast<int128>(i);
  }
  __syncthreads();
  int128 offset = 0;
#pragma unroll 1
  for (int base = 0; base < count; base += blockDim.x) {
    const int c = base + threadIdx.x;
    int128 width = 0, space = 0;
    if (c < count) {
      width = wide.units(clusters[c].origin, score[static_cast<int>(clusters[c].width)]);
      space = wide.room(width);
    }
    const int128 end = carried_scan(space, offset, Plus());
    if (c < count) {
      clusters[c].width = width;
      clusters[c].offset = end - space;
    }
  }
  __syncthreads();
  return count;
}

// sort_positives: sorts the positives that find listed, and decides their positions.
//   in       input; work.list (status.found of them), or tables.index, .score and place where work.size is 0
//   out      tables.index, .score, place; the plan but for its cells, positions, clusters, empty bins
//   status   in: all but nan (work.size 0: all); out: nan too
//   launch   one_block(p), kItemBytes work.size of shared memory where work.keys is null; O(p log^2 p) work
__global__ void __launch_bounds__(kMostThreads, 1)
    sort_positives(Input input, BlockScratch work, Tables tables, int64_t* place, Status* status,
                   SortedTables to) {
  extern __shared__ uint64_t shared_keys[];
  const int p = static_cast<int>(input.p);
  const int64_t found = status->found;
  bool nan = false;
  if (work.size == 0) {
    nan = status->nan;
  } else {
    if (!work.keys) {
      work.keys = shared_keys;
      work.values = reinterpret_cast<uint32_t*>(shared_keys + work.size);
    }
    nan = sort_in_block(input, work, static_cast<int>(min(found, input.p)), tables, place);
    if (threadIdx.x == 0 && nan) status->nan = 1;
  }
  if (found != p || status->invalid || nan) {
    if (threadIdx.x == 0) to.plan->kind = PositionKind::kNone;
    return;
  }
  __syncthreads();
  const double* score = tables.score;
  const double lowest = score[0], highest = score[p - 1], delta = input.delta;
  const int64_t n = counted(input);
  // Floats must hold the knots, their distances, and slopes, which have 1 / (2 delta) for a factor.
  const bool in_range = delta > 0x1p-24 && delta < 0x1p24 && lowest > -0x1p120 && highest < 0x1p120;
  if (in_range && input.logits.dtype != Dtype::kFloat64 && Narrow::fits(lowest, highest, n, delta)) {
    const Narrow narrow = Narrow::make(lowest, n, delta);
    write_positions(narrow, score, p, to);
    if (threadIdx.x == 0) {
      to.plan->kind = PositionKind::kNarrow;
      to.plan->narrow = narrow;
    }
  } else {
    Wide wide = Wide::make(delta);
    wide.count = write_clusters(wide, score, p, delta, to.clusters);
    wide.clusters = to.clusters;
    write_positions(wide, score, p, to);
    if (threadIdx.x == 0) {
      to.plan->kind = PositionKind::kWide;
      to.plan->clusters = wide.count;
    }
  }
}

void sort_and_build(const Input& input, const BlockScratch& work, size_t shared, const Tables& tables,
                    int64_t* place, Status* status, cudaStream_t stream) {
  launch("sort_positives", sort_positives, one_block(input.p, shared), stream, input, work, tables, place,
         status, SortedTables(input, tables.device));
  build(input, tables, stream);
}

}  // namespace

size_t table_bytes(const Input& input) { return SortedTables(input, nullptr).bytes; }

size_t scratch_bytes(const Input& input, cudaStream_t stream) {
  if (input.p > kMostInBlock) return positives_scratch_bytes(input, stream);
  Arena arena(nullptr);
  take_scratch(input, arena);
  return arena.bytes();
}

void find(const Input& input, const Tables& tables, int64_t* place, Status* status, void* scratch,
          cudaStream_t stream) {
  Arena arena(scratch);
  BlockScratch work = take_scratch(input, arena);
  if (work.size == 0) {
    find_positives(input, tables, place, status, scratch, stream);
    return lay_out(input, tables, status, stream);
  }
  check(cudaMemsetAsync(status, 0, sizeof(Status), stream), "memset of status");
  list_positives(input, work.list, status, stream);
  const size_t bytes = static_cast<size_t>(work.size) * kItemBytes, shared = is_shareable(bytes) ? bytes : 0;
  if (shared) work.keys = nullptr;
  sort_and_build(input, work, shared, tables, place, status, stream);
}

void lay_out(const Input& input, const Tables& tables, Status* status, cudaStream_t stream) {
  sort_and_build(input, {}, 0, tables, nullptr, status, stream);
}

}  // namespace alrp::cuda::sorted

// The first stage of the sorted form: the positives, sorted, and the form that their scores ask for.
#include <algorithm>

#include "../arena.h"
#include "../keys.h"
#include "array.cuh"
#include "block.cuh"
#include "launch.h"
#include "sorted.cuh"
#include "stages.h"

namespace alrp::cuda::sorted {
namespace {

constexpr int64_t kMostInBlock = 8192;  // positives that one block sorts
constexpr int kPairBytes = 12;          // of a key and a value

// What bitonic_sort sorts for p positives.
int64_t padded(int64_t p) {
  int64_t size = 32;
  while (size < p) size *= 2;
  return size;
}

// Scratch of this file, for positives that one block sorts.
struct Scratch {
  int64_t* flat;
  uint64_t* keys;
  uint32_t* values;
  size_t bytes;

  Scratch(const Input& input, void* base) {
    const int64_t size = input.p <= kMostInBlock ? padded(input.p) : 0;
    Arena arena(base);
    flat = arena.take<int64_t>(size);
    keys = arena.take<uint64_t>(size);
    values = arena.take<uint32_t>(size);
    bytes = arena.bytes();
  }
};

// What find and the sort know of a call.
struct Found {
  bool good;     // as many positives found as told, no impossible label, no NaN
  bool ignored;  // some label is
};

// Sorts what find listed: by flat index, which gives places, then by score, ties by descending place.
__device__ Found sort_in_block(const Array& logits, int64_t* list, uint64_t* keys, uint32_t* values, int p,
                               int size, const Tables& tables, int64_t* place, Status* status) {
  // The key of a float has room for a place, and keys sort alone.
  constexpr uint64_t kRoom = (uint64_t{1} << kFloatRoom) - 1;
  const bool packed = logits.dtype != Dtype::kFloat64;
  const int64_t found = status->found;
  const auto flags = static_cast<unsigned long long>(status->invalid);
  const int listed = static_cast<int>(found < p ? found : p);
#pragma unroll 1
  for (int i = threadIdx.x; i < size; i += blockDim.x)
    keys[i] = i < listed ? static_cast<uint64_t>(list[i]) : ~uint64_t{0};
  bitonic_sort<false>(keys, nullptr, size);
  if (threadIdx.x == 0) status->invalid = flags & kInvalidLabel;  // which all have read
#pragma unroll 1
  for (int i = threadIdx.x; i < listed; i += blockDim.x) list[i] = static_cast<int64_t>(keys[i]);
  __syncthreads();
  bool any_nan = false;
#pragma unroll 1
  for (int i = threadIdx.x; i < size; i += blockDim.x) {
    const double score = i < listed ? load(logits, list[i]) : 0.0;
    const bool nan = score != score;
    any_nan |= nan;
    const uint64_t key = i < listed ? key_of(nan ? 0.0 : score) : ~uint64_t{0};
    const uint32_t value = i < p ? p - 1 - i : kRoom;
    keys[i] = packed ? (key & ~kRoom) | value : key;
    if (!packed) values[i] = value;
  }
  if (packed)
    bitonic_sort<false>(keys, nullptr, size);
  else
    bitonic_sort<true>(keys, values, size);
#pragma unroll 1
  for (int r = threadIdx.x; r < p; r += blockDim.x) {
    const uint64_t key = keys[r];
    const int at = p - 1 - static_cast<int>(packed ? key & kRoom : values[r]);
    place[r] = at;
    tables.index[r] = at < listed ? list[at] : -1;
    const uint64_t plain = !packed ? key : (key >> 63 ? key & ~kRoom : key | kRoom);
    tables.score[r] = at < listed ? score_of(plain) : HUGE_VAL;  // scores have to ascend
  }
  if (any_nan) raise(&status->nan);
  return {!__syncthreads_or(any_nan) && found == p && !(flags & kInvalidLabel), (flags & kIgnoredLabel) != 0};
}

// Positions of the positives, and empty bins.
template <typename Position>
__device__ void lay_positions(const Position& position, const double* score, int p, const SortedTables& to) {
  auto* x = static_cast<typename Position::Int*>(to.position);
  auto* bins = static_cast<Bin<typename Position::Sum>*>(to.bins);
#pragma unroll 1
  for (int i = threadIdx.x; i < p; i += blockDim.x) x[i] = position.of(score[i]);
#pragma unroll 1
  for (int m = threadIdx.x; m <= 2 * p; m += blockDim.x) bins[m] = {0, 0};
}

// The clusters of Wide; returns how many.
__device__ int64_t lay_clusters(Wide wide, const double* score, int p, double delta, Cluster* clusters) {
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
    int128 width = 0, room = 0;
    if (c < count) {
      width = wide.units(clusters[c].origin, score[static_cast<int>(clusters[c].width)]);
      room = wide.room(width);
    }
    const int128 end = carried_scan(room, offset, Plus());
    if (c < count) {
      clusters[c].width = width;
      clusters[c].offset = end - room;
    }
  }
  __syncthreads();
  return count;
}

// sort_positives: sorts the positives that find listed, and decides the form.
//   in       list (status.found of them), logits; where `sorted`, tables.index, .score and place are done
//   out      tables.index, .score, place; the plan but for its cells, positions, clusters, empty bins; status.nan
//   status   in: found, and invalid as find left it (where `sorted`: as Status has it); out: as Status has it
//   keys, values  scratch of `size` (a power of two) in global memory; null: in dynamic shared memory,
//            12 size bytes
//   launch   one block of threads_for(p) threads; O(p log^2 p) work
__global__ void __launch_bounds__(kOneBlock, 1)
    sort_positives(Array logits, int64_t n, double delta, bool sorted, int64_t* list, uint64_t* keys,
                   uint32_t* values, int size, Tables tables, int64_t* place, Status* status,
                   SortedTables to) {
  extern __shared__ uint64_t pairs[];
  const int p = static_cast<int>(to.p);
  Found found{true, true};
  if (sorted) {
    found.good = status->found == p && !status->invalid && !status->nan;
  } else {
    if (!keys) {
      keys = pairs;
      values = reinterpret_cast<uint32_t*>(pairs + size);
    }
    found = sort_in_block(logits, list, keys, values, p, size, tables, place, status);
  }
  if (!found.good) {
    if (threadIdx.x == 0) to.plan->form = Form::kNone;
    return;
  }
  __syncthreads();
  const double* score = tables.score;
  const double lowest = score[0], highest = score[p - 1];
  // Floats must hold the knots, their distances, and slopes, which have 1 / (2 delta) for a factor.
  const bool in_range = delta > 0x1p-24 && delta < 0x1p24 && lowest > -0x1p120 && highest < 0x1p120;
  if (in_range && logits.dtype != Dtype::kFloat64 && Narrow::fits(lowest, highest, n, delta)) {
    const Narrow narrow = Narrow::make(lowest, n, delta);
    lay_positions(narrow, score, p, to);
    if (threadIdx.x == 0) {
      to.plan->form = Form::kNarrow;
      to.plan->narrow = narrow;
      to.plan->reads_labels = found.ignored;
    }
  } else {
    Wide wide = Wide::make(delta);
    wide.count = lay_clusters(wide, score, p, delta, to.clusters);
    wide.clusters = to.clusters;
    lay_positions(wide, score, p, to);
    if (threadIdx.x == 0) {
      to.plan->form = Form::kWide;
      to.plan->clusters = wide.count;
    }
  }
}

}  // namespace

size_t table_bytes(const Input& input) { return SortedTables(input, nullptr).bytes; }

size_t scratch_bytes(const Input& input) { return Scratch(input, nullptr).bytes; }

void find(const Input& input, const Tables& tables, int64_t* place, Status* status, void* scratch,
          cudaStream_t stream) {
  const SortedTables to(input, tables.device);
  const bool in_block = input.p <= kMostInBlock;
  const Scratch work(input, scratch);
  int64_t size = 0;
  size_t shared = 0;
  if (in_block) {
    check(cudaMemsetAsync(status, 0, sizeof(Status), stream), "memset of status");
    list_positives(input, work.flat, status, stream);
    size = padded(input.p);
    shared = is_shareable(size * kPairBytes) ? size * kPairBytes : 0;
    allow_dynamic_shared(reinterpret_cast<const void*>(sort_positives));
  } else {
    find_positives(input, tables, place, status, scratch, stream);
  }
  sort_positives<<<1, threads_for(input.p), shared, stream>>>(
      input.logits, counted(input), input.delta, !in_block, work.flat, shared ? nullptr : work.keys,
      work.values, static_cast<int>(size), tables, place, status, to);
  check_launch("sort_positives");
  build(input, tables, stream);
}

void lay_out(const Input& input, const Tables& tables, Status* status, cudaStream_t stream) {
  const SortedTables to(input, tables.device);
  sort_positives<<<1, threads_for(input.p), 0, stream>>>(input.logits, counted(input), input.delta, true,
                                                         nullptr, nullptr, nullptr, 0, tables, nullptr,
                                                         status, to);
  check_launch("sort_positives");
  build(input, tables, stream);
}

}  // namespace alrp::cuda::sorted

// The first stages of the sorted form: find the positives, sort them, lay out their knots.
#include <algorithm>

#include "../arena.h"
#include "array.cuh"
#include "backend.h"
#include "block.cuh"
#include "keys.cuh"
#include "launch.h"
#include "sorted.cuh"

namespace alrp::cuda {
namespace {

constexpr int64_t kMostInBlock = 8192;   // positives that one block sorts
constexpr int64_t kMostInShared = 4096;  // and that it sorts in 48 KB of shared memory
constexpr int kPairBytes = 12;           // of a key and a value
constexpr int kFindBlocks = 8;           // blocks of find an SM

int64_t power_of_two_from(int64_t n) {
  int64_t size = 1;
  while (size < n) size *= 2;
  return size;
}

// Scratch of this file, for positives that one block sorts.
struct Scratch {
  int64_t* flat;
  uint64_t* keys;
  uint32_t* values;
  size_t bytes;

  Scratch(const Input& input, void* base) {
    const int64_t size = input.p <= kMostInBlock ? power_of_two_from(input.p) : 0;
    Arena arena(base);
    flat = arena.take<int64_t>(size);
    keys = arena.take<uint64_t>(size);
    values = arena.take<uint32_t>(size);
    bytes = arena.bytes();
  }
};

// Keeps a positive, or reports an impossible label.
__device__ void visit(Mark mark, int64_t flat, int64_t* list, int64_t capacity, Status* status) {
  if (mark == Mark::kInvalid) raise(&status->invalid);
  if (mark != Mark::kPositive) return;
  const auto place = static_cast<int64_t>(
      atomicAdd(reinterpret_cast<unsigned long long*>(&status->found), 1ULL));  // in no order
  if (place < capacity) list[place] = flat;
}

// find: appends the flat indices of the positives to `list`, in any order; drops those beyond its capacity.
//   labels   n of kBytes each, read once, 16 bytes a lane; all zero: nothing to do
//   status   found and invalid, zeroed by the caller
//   launch   any grid of kThreads threads
template <int kBytes>
__global__ void __launch_bounds__(kThreads)
    find_labels(Labels labels, int64_t n, int64_t* list, int64_t capacity, Status* status) {
  constexpr int kLabels = 16 / kBytes;         // in a vector
  constexpr int kWords = kBytes == 8 ? 2 : 1;  // of a step through the vector
  constexpr int kInStep = kBytes == 8 ? 1 : 4 / kBytes;
  const int64_t first = int64_t{blockIdx.x} * kThreads + threadIdx.x, stride = int64_t{gridDim.x} * kThreads;
  const int64_t vectors = reinterpret_cast<uintptr_t>(labels.data) % 16 == 0 ? n / kLabels : 0;
  for (int64_t v = first; v < vectors; v += stride) {
    const uint4 four = static_cast<const uint4*>(labels.data)[v];
    if ((four.x | four.y | four.z | four.w) == 0) continue;
    const uint32_t words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int w = 0; w < 4; w += kWords) {
      uint64_t bits = words[w];
      if constexpr (kBytes == 8) bits |= uint64_t{words[w + 1]} << 32;
      if (bits == 0) continue;
#pragma unroll 1
      for (int k = 0; k < kInStep; ++k, bits >>= 8 * kBytes % 64)
        visit(flat_mark(labels, kBytes == 8 ? bits : bits & (~uint64_t{0} >> (64 - 8 * kBytes))),
              v * kLabels + (w / kWords) * kInStep + k, list, capacity, status);
    }
  }
#pragma unroll 1
  for (int64_t i = vectors * kLabels + first; i < n; i += stride)
    visit(flat_mark(labels, label_bits(labels, i)), i, list, capacity, status);
}

// The same for class indices: one of `rows` labels a row of logits. launch  any grid of kThreads threads
__global__ void __launch_bounds__(kThreads)
    find_rows(Labels labels, int64_t rows, int64_t* list, int64_t capacity, Status* status) {
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x; row < rows; row += stride) {
    const int64_t column = row_class(labels, label_bits(labels, row));
    const Mark mark =
        column >= 0 ? Mark::kPositive : (column == kInvalidRow ? Mark::kInvalid : Mark::kIgnored);
    visit(mark, row * labels.classes + column, list, capacity, status);
  }
}

// Sorts what find listed: by flat index, which gives places, then by score, ties by descending place.
// Returns whether all is well: as many found as told, no impossible label, no NaN.
__device__ bool sort_in_block(const Array& logits, int64_t* list, uint64_t* keys, uint32_t* values, int p,
                              int size, const Tables& tables, int64_t* place, Status* status) {
  const int64_t found = status->found;
  const int listed = static_cast<int>(found < p ? found : p);
#pragma unroll 1
  for (int i = threadIdx.x; i < size; i += kBlock) {
    keys[i] = i < listed ? static_cast<uint64_t>(list[i]) : ~uint64_t{0};
    values[i] = 0;
  }
  bitonic_sort(keys, values, size);
#pragma unroll 1
  for (int i = threadIdx.x; i < listed; i += kBlock) list[i] = static_cast<int64_t>(keys[i]);
  __syncthreads();
  bool any_nan = false;
#pragma unroll 1
  for (int i = threadIdx.x; i < size; i += kBlock) {
    const double score = i < listed ? load(logits, list[i]) : 0.0;
    const bool nan = score != score;
    any_nan |= nan;
    keys[i] = i < listed ? key_of(nan ? 0.0 : score) : ~uint64_t{0};
    values[i] = i < p ? p - 1 - i : ~uint32_t{0};
  }
  bitonic_sort(keys, values, size);
#pragma unroll 1
  for (int r = threadIdx.x; r < p; r += kBlock) {
    const int at = p - 1 - static_cast<int>(values[r]);
    place[r] = at;
    tables.index[r] = at < listed ? list[at] : -1;
    tables.score[r] = at < listed ? score_of(keys[r]) : 0.0;
  }
  if (any_nan) raise(&status->nan);
  return !__syncthreads_or(any_nan) && found == p && !status->invalid;
}

// Positions of the positives, their knots in order, and empty bins.
template <typename Position>
__device__ void lay_out(const Position& position, const double* score, int p, const SortedTables& to) {
  using Int = typename Position::Int;
  auto* x = static_cast<Int*>(to.position);
  auto* knots = static_cast<Int*>(to.knots);
  auto* bins = static_cast<Bin<typename Position::Sum>*>(to.bins);
#pragma unroll 1
  for (int i = threadIdx.x; i < p; i += kBlock) x[i] = position.of(score[i]);
#pragma unroll 1
  for (int m = threadIdx.x; m <= 2 * p; m += kBlock) bins[m] = {0, 0};
  __syncthreads();
  const Int half = position.half;
#pragma unroll 1
  for (int i = threadIdx.x; i < p; i += kBlock) {  // a merge: each knot's place is its rank in both lists
    const Int own = x[i];
    const auto left = i + static_cast<int32_t>(rank_in<Int>(x, p, own - 2 * half, false));
    const auto right = i + static_cast<int32_t>(rank_in<Int>(x, p, own + 2 * half, true));
    knots[left] = own - half;
    knots[right] = own + half;
    to.begun[left] = i + 1;
    to.begun[right] = right - i;
    to.left[i] = left;
    to.right[i] = right;
  }
  __syncthreads();
}

// Upper ends of the segments as floats, and the cells over them.
template <typename Index>
__device__ void lay_cells(const Narrow& narrow, double delta, int p, const SortedTables& to) {
  const auto* knots = static_cast<const int64_t*>(to.knots);
  auto* starts = static_cast<Index*>(to.starts);
  const double unit = 1 / narrow.scale;
#pragma unroll 1
  for (int k = threadIdx.x; k < 2 * p; k += kBlock)
    // Exact but for the last rounding, which goes outward.
    to.upper[k] = __double2float_ru((static_cast<double>(knots[k]) - narrow.offset) * unit);
  if (threadIdx.x == 0) to.upper[2 * p] = __int_as_float(0x7f800000);
  __syncthreads();
  const float low = to.upper[0], high = to.upper[2 * p - 1];
  // Cells finer than floats serve nothing, and the bias must not round: scale times a score stays below 2^22.
  const float farthest = fmaxf(fabsf(low), fabsf(high));
  const float wish = static_cast<float>(to.most_cells - 4) / (high - low);  // inf where they are equal
  float scale = fminf(wish, 0x1p22f / farthest);
  if (!(scale < 0x1p100f)) scale = 0;
  const float bias = rintf(0x1p23f + 2 - low * scale);
  uint32_t first = __float_as_uint(fmaf(low, scale, bias));
  int cells = static_cast<int>(cell_of(high, scale, bias, first)) + 1;
  if (cells < 1 || cells > to.most_cells) {
    scale = 0;
    first = __float_as_uint(bias);
    cells = 1;
  }
#pragma unroll 1
  for (int c = threadIdx.x; c <= cells; c += kBlock) {
    int from = 0, count = 2 * p;
    while (count > 0) {
      const int middle = count / 2;
      if (cell_of(to.upper[from + middle], scale, bias, first) < static_cast<uint32_t>(c)) {
        from += middle + 1;
        count -= middle + 1;
      } else {
        count = middle;
      }
    }
    starts[c] = static_cast<Index>(from);
  }
  if (threadIdx.x == 0) {
    Plan* plan = to.plan;
    plan->low = low;
    plan->high = high;
    plan->cell_scale = scale;
    plan->cell_bias = bias;
    plan->cell_first = first;
    plan->cells = cells;
    plan->per_step = static_cast<float>(0.5 / delta);
  }
}

// The clusters of Wide; returns how many.
__device__ int64_t lay_clusters(Wide wide, const double* score, int p, double delta, Cluster* clusters) {
  int32_t count = 0;
#pragma unroll 1
  for (int base = 0; base < p; base += kBlock) {
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
  for (int base = 0; base < count; base += kBlock) {
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

// prepare: sorts the positives that find listed, decides the form, and lays out its knots.
//   in       list (status.found of them), logits; where `sorted`, tables.index, .score and place are done
//   out      tables.index, .score, place; all of SortedTables but base, slope and sums; status.nan
//   keys, values  scratch of `size` (a power of two) in global memory; null: in dynamic shared memory,
//            12 size bytes
//   launch   one block of kBlock threads; O(p log^2 p) work
__global__ void __launch_bounds__(kBlock)
    prepare(Array logits, int64_t n, double delta, bool sorted, bool short_starts, int64_t* list,
            uint64_t* keys, uint32_t* values, int size, Tables tables, int64_t* place, Status* status,
            SortedTables to) {
  extern __shared__ uint64_t pairs[];
  const int p = static_cast<int>(to.p);
  bool good;
  if (sorted) {
    good = status->found == p && !status->invalid && !status->nan;
  } else {
    if (!keys) {
      keys = pairs;
      values = reinterpret_cast<uint32_t*>(pairs + size);
    }
    good = sort_in_block(logits, list, keys, values, p, size, tables, place, status);
  }
  if (!good) {
    if (threadIdx.x == 0) to.plan->form = Form::kNone;
    return;
  }
  __syncthreads();
  const double* score = tables.score;
  const double lowest = score[0], highest = score[p - 1];
  // Floats must hold the knots, their distances and 1 / (2 delta).
  const bool in_range = delta > 0x1p-100 && delta < 0x1p100 && lowest > -0x1p120 && highest < 0x1p120;
  if (in_range && logits.dtype != Dtype::kFloat64 && Narrow::fits(lowest, highest, n, delta)) {
    const Narrow narrow = Narrow::make(lowest, n, delta);
    lay_out(narrow, score, p, to);
    if (short_starts)
      lay_cells<uint16_t>(narrow, delta, p, to);
    else
      lay_cells<uint32_t>(narrow, delta, p, to);
    if (threadIdx.x == 0) {
      to.plan->form = Form::kNarrow;
      to.plan->narrow = narrow;
    }
  } else {
    Wide wide = Wide::make(delta);
    wide.count = lay_clusters(wide, score, p, delta, to.clusters);
    wide.clusters = to.clusters;
    lay_out(wide, score, p, to);
    if (threadIdx.x == 0) {
      to.plan->form = Form::kWide;
      to.plan->clusters = wide.count;
    }
  }
}

unsigned find_grid(int64_t items) {
  int device = 0, multiprocessors = 1;
  check(cudaGetDevice(&device), "device");
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "device attribute");
  return static_cast<unsigned>(
      std::clamp<int64_t>(blocks_for(items), 1, int64_t{kFindBlocks} * multiprocessors));
}

void find(const Input& input, int64_t* list, Status* status, cudaStream_t stream) {
  const Labels& labels = input.labels;
  const int64_t n = input.n;
  const auto run = [&](auto* kernel, int64_t count, int64_t items) {
    kernel<<<find_grid(items), kThreads, 0, stream>>>(labels, count, list, input.p, status);
    check_launch("find");
  };
  if (labels.classes)
    run(find_rows, label_count(labels, n), label_count(labels, n));
  else if (labels.bytes == 1)
    run(find_labels<1>, n, n / 16);
  else if (labels.bytes == 2)
    run(find_labels<2>, n, n / 8);
  else if (labels.bytes == 4)
    run(find_labels<4>, n, n / 4);
  else
    run(find_labels<8>, n, n / 2);
}

}  // namespace

size_t CudaBackend::table_bytes(const Input& input) const {
  return is_sorted_form(input) ? SortedTables(input, nullptr).bytes : 0;
}

size_t CudaBackend::sorted_scratch_bytes(const Input& input) const { return Scratch(input, nullptr).bytes; }

void CudaBackend::sorted_positives(const Input& input, const Tables& tables, int64_t* place, Status* status,
                                   void* scratch) {
  const SortedTables to(input, tables.device);
  const bool in_block = input.p <= kMostInBlock;
  const Scratch work(input, scratch);
  int64_t size = 0;
  bool in_shared = false;
  if (in_block) {
    check(cudaMemsetAsync(status, 0, sizeof(Status), stream_), "memset of status");
    find(input, work.flat, status, stream_);
    size = power_of_two_from(input.p);
    in_shared = size <= kMostInShared;
  } else {
    sort_positives(input, tables, place, status, scratch);
  }
  prepare<<<1, kBlock, in_shared ? size * kPairBytes : 0, stream_>>>(
      input.logits, input.n, input.delta, !in_block, fits_shared(to), work.flat,
      in_shared ? nullptr : work.keys, work.values, static_cast<int>(size), tables, place, status, to);
  check_launch("prepare");
}

}  // namespace alrp::cuda

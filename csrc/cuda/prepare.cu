// The first stage of the sorted form: the positives, sorted, and their knots laid out.
#include <algorithm>

#include "../arena.h"
#include "../keys.h"
#include "array.cuh"
#include "backend.h"
#include "block.cuh"
#include "launch.h"
#include "sorted.cuh"

namespace alrp::cuda {
namespace {

constexpr int64_t kMostInBlock = 8192;   // positives that one block sorts
constexpr int64_t kMostInShared = 4096;  // and that it sorts in 48 KB of shared memory
constexpr int kPairBytes = 12;           // of a key and a value

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
  // The low bits of a double that was a float are 0: in its key they have room for a place, and keys sort alone.
  constexpr uint64_t kRoom = (uint64_t{1} << 29) - 1;
  const bool packed = logits.dtype != Dtype::kFloat64;
  const int64_t found = status->found;
  const auto flags = static_cast<unsigned long long>(status->invalid);
  const int listed = static_cast<int>(found < p ? found : p);
#pragma unroll 1
  for (int i = threadIdx.x; i < size; i += kBlock)
    keys[i] = i < listed ? static_cast<uint64_t>(list[i]) : ~uint64_t{0};
  bitonic_sort<false>(keys, nullptr, size);
  if (threadIdx.x == 0) status->invalid = flags & kInvalidLabel;  // which all have read
#pragma unroll 1
  for (int i = threadIdx.x; i < listed; i += kBlock) list[i] = static_cast<int64_t>(keys[i]);
  __syncthreads();
  bool any_nan = false;
#pragma unroll 1
  for (int i = threadIdx.x; i < size; i += kBlock) {
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
  for (int r = threadIdx.x; r < p; r += kBlock) {
    const uint64_t key = keys[r];
    const int at = p - 1 - static_cast<int>(packed ? key & kRoom : values[r]);
    place[r] = at;
    tables.index[r] = at < listed ? list[at] : -1;
    // Zeros in the room of what is positive, ones in that of what is negative.
    const uint64_t plain = !packed ? key : (key >> 63 ? key & ~kRoom : key | kRoom);
    tables.score[r] = at < listed ? score_of(plain) : 0.0;
  }
  if (any_nan) raise(&status->nan);
  return {!__syncthreads_or(any_nan) && found == p && !(flags & kInvalidLabel), (flags & kIgnoredLabel) != 0};
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
__device__ void lay_cells(const Narrow& narrow, int p, const SortedTables& to) {
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
  float bias = rintf(0x1p23f + 2 - low * scale);  // low falls in one of the first cells, whatever rounds
  int cells = static_cast<int>(cell_of(high, scale, bias)) + 1;
  if (cells < 1 || cells > to.most_cells) {
    scale = 0;
    bias = 0x1p23f;
    cells = 1;
  }
  // Neighbouring cells mostly have no knot between them: a thread searches once, and again where one comes.
  constexpr int kRun = 8;
#pragma unroll 1
  for (int begin = kRun * threadIdx.x; begin <= cells; begin += kRun * kBlock) {
    int from = 0;
#pragma unroll 1
    for (int c = begin; c <= cells && c < begin + kRun; ++c) {
      int count =
          c == begin || (from < 2 * p && cell_of(to.upper[from], scale, bias) < static_cast<uint32_t>(c))
              ? 2 * p - from
              : 0;
      while (count > 0) {
        const int middle = count / 2;
        if (cell_of(to.upper[from + middle], scale, bias) < static_cast<uint32_t>(c)) {
          from += middle + 1;
          count -= middle + 1;
        } else {
          count = middle;
        }
      }
      starts[c] = static_cast<Index>(from);
    }
  }
  if (threadIdx.x == 0) {
    Plan* plan = to.plan;
    plan->low = low;
    plan->high = high;
    plan->cell_scale = scale;
    plan->cell_bias = bias;
    plan->cells = cells;
  }
}

// Bins that begin with what count adds for the positives, negated: it takes them for negatives.
__device__ void take_out_positives(const Narrow& narrow, const double* score, int p, const SortedTables& to) {
#pragma unroll 1
  for (int i = threadIdx.x; i < p; i += kBlock) {
    const auto s = static_cast<float>(score[i]);  // as exact as it was
    const int64_t m = rank_in<float>(to.upper, 2 * p, s, true);
    auto* bin = reinterpret_cast<unsigned long long*>(static_cast<Bin<uint64_t>*>(to.bins) + m);
    atomicAdd(bin, static_cast<unsigned long long>(shifted_zero() - shifted_position(narrow, s)));
    atomicAdd(bin + 1, ~0ULL);
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
//   status   in: found, and invalid as find left it (where `sorted`: as Status has it); out: as Status has it
//   keys, values  scratch of `size` (a power of two) in global memory; null: in dynamic shared memory,
//            12 size bytes
//   launch   one block of kBlock threads; O(p log^2 p) work
__global__ void __launch_bounds__(kBlock)
    prepare(Array logits, int64_t n, double delta, bool sorted, bool short_starts, int64_t* list,
            uint64_t* keys, uint32_t* values, int size, Tables tables, int64_t* place, Status* status,
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
    lay_out(narrow, score, p, to);
    if (short_starts)
      lay_cells<uint16_t>(narrow, p, to);
    else
      lay_cells<uint32_t>(narrow, p, to);
    if (!found.ignored) take_out_positives(narrow, score, p, to);
    if (threadIdx.x == 0) {
      to.plan->form = Form::kNarrow;
      to.plan->narrow = narrow;
      to.plan->reads_labels = found.ignored;
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
    find(input, work.flat, status);
    size = padded(input.p);
    in_shared = size <= kMostInShared;
  } else {
    sort_positives(input, tables, place, status, scratch);
  }
  prepare<<<1, kBlock, in_shared ? size * kPairBytes : 0, stream_>>>(
      input.logits, counted(input), input.delta, !in_block, fits_shared(to), work.flat,
      in_shared ? nullptr : work.keys, work.values, static_cast<int>(size), tables, place, status, to);
  check_launch("prepare");
}

void CudaBackend::lay_out(const Input& input, const Tables& tables, Status* status) {
  const SortedTables to(input, tables.device);
  prepare<<<1, kBlock, 0, stream_>>>(input.logits, counted(input), input.delta, true, fits_shared(to),
                                     nullptr, nullptr, nullptr, 0, tables, nullptr, status, to);
  check_launch("prepare");
}

}  // namespace alrp::cuda

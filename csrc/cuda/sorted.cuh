// What the kernels of the sorted form leave for one another: the plan of a call, and its P-sized tables.
#pragma once

#include <cuda_runtime.h>

#include "../arena.h"
#include "../positions.h"
#include "../ranking.h"
#include "device.h"

namespace alrp::cuda {

// How a call is computed: decided on the device, for the host does not know the scores.
enum class Form : int32_t {
  kNone,    // poisoned: every output is NaN
  kNarrow,  // Narrow positions; segments by comparison of floats
  kWide,    // Wide positions
};

struct Plan {
  Form form;
  int32_t spreads;       // 1: the shares are finite, so prefix sums of them work
  int32_t reads_labels;  // 0: every logit is a positive or a negative. The streams of Narrow take all for
  // negatives then, and read no label: the bins begin with what positives add, negated,
  // and their gradients are overwritten
  Narrow narrow;
  int64_t clusters;  // of Wide
  float low, high;   // lowest and highest knot: scores below have no part, scores above are alike
  float cell_scale, cell_bias;
  int32_t cells;
};

// The cell of a score from low to high: monotone, so that the cell of a knot tells on which side of it a
// score in another cell lies. The bias, near 2^23, makes the low bits of the float the cell.
constexpr uint32_t kCellZero = 0x4b000000;  // the float 2^23

__device__ __forceinline__ uint32_t cell_of(float score, float scale, float bias) {
  return __float_as_uint(fmaf(score, scale, bias)) - kCellZero;
}

// Narrow::of of a float plus shifted_zero, rounded once: added, kShift leaves the integer part of a double in
// its low bits.
constexpr double kShift = Narrow::kShift;

__device__ __forceinline__ uint64_t shifted_position(const Narrow& narrow, float score) {
  return static_cast<uint64_t>(
      __double_as_longlong(fma(static_cast<double>(score), narrow.scale, narrow.offset + kShift)));
}

__device__ __forceinline__ uint64_t shifted_zero() {
  return static_cast<uint64_t>(__double_as_longlong(kShift));
}

// What find leaves in status.invalid, until sort_positives makes it what Status says.
constexpr unsigned long long kInvalidLabel = 1, kIgnoredLabel = 2;

// Two sums that are taken at once.
struct Pair {
  double first, second;
};

__device__ inline Pair operator+(const Pair& a, const Pair& b) {
  return {a.first + b.first, a.second + b.second};
}
__device__ inline Pair operator-(const Pair& a, const Pair& b) {
  return {a.first - b.first, a.second - b.second};
}
__device__ inline Pair operator*(const Pair& a, double b) { return {a.first * b, a.second * b}; }

// Tables in Tables::device. Knots are the 2p of all positives, ascending, equal ones too. Segment m holds the
// scores with m knots at or below them.
struct SortedTables {
  Plan* plan;
  void* position;     // (p) of the positives: Narrow::Int or Wide::Int
  void* knots;        // (2p) likewise
  int32_t* begun;     // (2p) positives whose KL is among the knots up to here
  int32_t* left;      // (p) which knot is the KL of each positive
  int32_t* right;     // (p) and which its KR
  int32_t* below;     // (p) knots below the position of each positive
  int32_t* within;    // (p) and knots at or below it: its segment
  Cluster* clusters;  // (p), Wide
  float* upper;  // (2p + 1) upper end of each segment as a float, Narrow: smallest float at or above the knot
  void* starts;  // (cells + 1) knots in cells below, uint16 where the tables go to shared memory, else uint32
  void* bins;    // (2p + 1) Bin; after compute_losses, their prefix sums
  double* base;  // (2p + 1) gradient at the lower end of each segment (Narrow: at its float)
  double* slope;  // (2p + 1) and its slope, per unit of position (Narrow: of score)
  Pair* prefix;   // (p + 1) prefix sums of weights, of two sums at once
  Pair* value;    // (2p + 1) and the sums at the lower end of each segment
  int64_t p;
  int32_t most_cells;
  size_t bytes;

  SortedTables(const Input& input, void* base_address) : p(input.p) {
    constexpr int64_t kCellsPerKnot = 4, kFewest = 64, kMost = 1 << 20;
    const int64_t wish = kCellsPerKnot * 2 * p;
    most_cells = static_cast<int32_t>(wish < kFewest ? kFewest : (wish > kMost ? kMost : wish));
    Arena arena(base_address);
    plan = arena.take<Plan>(1);
    position = arena.take<int128>(p);
    knots = arena.take<int128>(2 * p);
    begun = arena.take<int32_t>(2 * p);
    left = arena.take<int32_t>(p);
    right = arena.take<int32_t>(p);
    below = arena.take<int32_t>(p);
    within = arena.take<int32_t>(p);
    clusters = arena.take<Cluster>(p);
    upper = arena.take<float>(2 * p + 1);
    starts = arena.take<uint32_t>(most_cells + 1);
    bins = arena.take<Bin<uint128>>(2 * p + 1);
    base = arena.take<double>(2 * p + 1);
    slope = arena.take<double>(2 * p + 1);
    prefix = arena.take<Pair>(p + 1);
    value = arena.take<Pair>(2 * p + 1);
    bytes = arena.bytes();
  }

  // Shared memory of the streaming kernels: the starts, then a record of at most 20 bytes for each segment.
  __host__ __device__ size_t starts_bytes() const {
    return (2 * static_cast<size_t>(most_cells + 1) + 15) / 16 * 16;
  }
  size_t shared_bytes() const { return starts_bytes() + 20 * static_cast<size_t>(2 * p + 1); }
};

// Whether a block of this device has that much dynamic shared memory, beside a little of its own.
inline bool is_shareable(size_t bytes) { return bytes + 1024 <= current_device().shared_per_block; }

// Whether the tables go to shared memory; starts are 16 bits wide then.
inline bool fits_shared(const SortedTables& tables) {
  return tables.p < (1 << 14) && is_shareable(tables.shared_bytes());
}

// Number of the `count` ascending values that are below (or, with `or_equal`, at or below) x.
template <typename T>
__device__ int64_t rank_in(const T* values, int64_t count, T x, bool or_equal) {
  int64_t first = 0;
#pragma unroll 1
  while (count > 0) {
    const int64_t half = count / 2;
    const T value = values[first + half];
    if (value < x || (or_equal && value == x)) {
      first += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return first;
}

}  // namespace alrp::cuda

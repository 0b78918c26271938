// What the kernels of the sorted form pass on to one another: the plan of a call, and tables over its
// positives.
#pragma once

#include <cuda_runtime.h>

#include "../arena.h"
#include "../positions.h"
#include "../ranking.h"
#include "device.h"

namespace alrp::cuda {

// The positions of a call.
enum class PositionKind : int32_t {
  kNone,    // poisoned: every output is NaN
  kNarrow,  // segments by comparison of floats
  kWide,
};

// How a call is computed: decided on the device, for the host does not know the scores.
struct Plan {
  PositionKind kind;
  int32_t spreads;  // 1: the shares are finite, so prefix sums of them work
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

// Two sums that are taken at once.
struct alignas(16) TwoSums {
  double first, second;
};

__device__ inline TwoSums operator+(const TwoSums& a, const TwoSums& b) {
  return {a.first + b.first, a.second + b.second};
}
__device__ inline TwoSums operator-(const TwoSums& a, const TwoSums& b) {
  return {a.first - b.first, a.second - b.second};
}
__device__ inline TwoSums operator*(const TwoSums& a, double b) { return {a.first * b, a.second * b}; }

// Whether a block of this device has that much dynamic shared memory, beside a little of its own.
inline bool is_shareable(size_t bytes) { return bytes + 1024 <= current_device().shared_per_block; }

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
  void* starts;  // (cells + 1) knots in cells below: uint16 where `shared`, else uint32
  void* bins;    // (2p + 1) Bin; after compute_losses, their prefix sums
  double* base;  // (2p + 1) gradient at the lower end of each segment (Narrow: at its float)
  double* slope;    // (2p + 1) and its slope, per unit of position (Narrow: of score)
  TwoSums* prefix;  // (p + 1) prefix sums of weights, of two sums at once
  TwoSums* value;   // (2p + 1) and the sums at the lower end of each segment
  int64_t p;
  int32_t most_cells;
  bool shared;  // whether the streams copy what they look up to shared memory
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
    prefix = arena.take<TwoSums>(p + 1);
    value = arena.take<TwoSums>(2 * p + 1);
    bytes = arena.bytes();
    shared = p < (1 << 14) && is_shareable(shared_bytes());
  }

  __device__ Wide wide(double delta) const {
    Wide wide = Wide::make(delta);
    wide.clusters = clusters;
    wide.count = plan->clusters;
    return wide;
  }

  __host__ __device__ int64_t bin_vectors() const {
    return (2 * p + 1) * sizeof(Bin<uint128>) / sizeof(ulonglong2);
  }

  // Shared memory of the streaming kernels: the starts, then a record of at most 20 bytes for each segment.
  __host__ __device__ size_t starts_bytes() const {
    return (2 * static_cast<size_t>(most_cells + 1) + 15) / 16 * 16;
  }
  size_t shared_bytes() const { return starts_bytes() + 20 * static_cast<size_t>(2 * p + 1); }
};

// Calls visit() with the positions of the call: a Narrow, or a Wide without clusters. False where it has
// none.
template <typename Visit>
__device__ __forceinline__ bool with_positions(const Plan& plan, double delta, const Visit& visit) {
  if (plan.kind == PositionKind::kNarrow) {
    const Narrow narrow = plan.narrow;
    visit(narrow);
  } else if (plan.kind == PositionKind::kWide) {
    visit(Wide::make(delta));
  }
  return plan.kind != PositionKind::kNone;
}

// The first k of [from, to) for which below(x[k] + shift) does not hold, or `to`. It holds for the ones
// before. Each step leaves one of kWays parts: two take the fewest comparisons, eight a third of the loads that wait
// for one another.
template <int kWays, typename X, typename Int, typename Below>
__device__ int first_of(const X& x, int from, int to, Int shift, const Below& below) {
#pragma unroll 1
  while (from < to) {
    const int part = (to - from) / kWays + 1;
    int passed = 0;
#pragma unroll
    for (int u = 1; u < kWays; ++u) {
      const int last = from + u * part - 1;
      // Read whether it is there or not, so that no load waits for another.
      passed += static_cast<int>(last < to) & static_cast<int>(below(x[min(last, to - 1)] + shift));
    }
    from += passed * part;
    to = min(to, from + part - 1);
  }
  return from;
}

template <typename Int>
__device__ auto up_to(Int bound) {
  return [bound](Int knot) { return knot <= bound; };
}

// The segment of a Wide position.
__device__ inline int segment_of(const SortedTables& t, int128 x) {
  return first_of<2>(static_cast<const int128*>(t.knots), 0, static_cast<int>(2 * t.p), int128{0}, up_to(x));
}

}  // namespace alrp::cuda

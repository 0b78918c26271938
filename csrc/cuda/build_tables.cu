// The second stage of the sorted form: the tables over the knots of the positives.
#include <algorithm>

#include "launch.cuh"
#include "sorted.cuh"
#include "stages.h"

namespace alrp::cuda::sorted {
namespace {

constexpr int kKnotThreads = 128;  // few, so that many multiprocessors share the searches
constexpr int kWays = 8;           // of a search, which waits for its loads

template <typename Int>
__device__ auto below(Int bound) {
  return [bound](Int knot) { return knot < bound; };
}

// Positives of one cluster: where their steps begin and end among those of all follows from these alone. With Narrow
// positions all are one cluster.
template <typename Position>
struct Members {
  Position position;
  const double* score;  // of all positives
  int begin, end;

  __device__ typename Position::Int operator[](int k) const { return position.of(score[k]); }
};

// Positive i's own knots: a merge, where each knot's place among all is its rank in both lists, KL and KR.
template <typename Position>
__device__ void write_knots_of(int i, const Members<Position>& x, const SortedTables& to) {
  using Int = typename Position::Int;
  const Int own = x[i], half = x.position.half;
  const int left = i + first_of<kWays>(x, x.begin, i, half, below(own - half));
  const int begun = first_of<kWays>(x, i, x.end, -half, up_to(own + half)), right = i + begun;
  static_cast<Int*>(to.position)[i] = own;
  auto* knots = static_cast<Int*>(to.knots);
  knots[left] = own - half;
  knots[right] = own + half;
  to.begun[left] = i + 1;
  to.begun[right] = begun;
  to.left[i] = left;
  to.right[i] = right;
}

// How many knots lie below positive i, and how many at or below it.
template <typename Position>
__device__ void write_rank_of(int i, const Members<Position>& x, const SortedTables& to) {
  using Int = typename Position::Int;
  const Int own = x[i], half = x.position.half;
  const int begun = first_of<kWays>(x, half ? i : x.begin, x.end, -half, below(own));
  const int ended = first_of<kWays>(x, x.begin, i, half, below(own));
  to.below[i] = begun + ended;
  // Few knots lie where a positive does.
  const auto past_ties = [&](int k, Int shift) {
    return k < x.end && x[k] + shift == own ? first_of<kWays>(x, k, x.end, shift, up_to(own)) : k;
  };
  to.within[i] = past_ties(begun, -half) + past_ties(ended, half);
}

// The cluster of positive i: which one it is, and its members. All threads of a block call, each with a neighbour of
// the others'. O(p / kKnotThreads) work for a thread.
__device__ Members<Wide> members_of(int i, const double* score, int p, double delta, int& cluster) {
  // Clusters that begin before the block's positives, and where the last of them does; where the first one after them does.
  __shared__ int before, latest, next;
  __shared__ unsigned begun[kKnotThreads / 32];  // by warps, which positives begin one
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, first = i - static_cast<int>(threadIdx.x);
  const auto begins = [&](int k) { return k < p && (k == 0 || !Wide::joins(score[k - 1], score[k], delta)); };
  if (threadIdx.x == 0) before = latest = 0, next = p;
  const unsigned own = __ballot_sync(0xffffffffu, begins(i));
  if (lane == 0) begun[warp] = own;
  __syncthreads();
  int count = 0, last = 0;
#pragma unroll 4
  for (int k = threadIdx.x; k < first; k += kKnotThreads)
    if (begins(k)) ++count, last = k;
  if (count) atomicAdd(&before, count), atomicMax(&latest, last);
  int k = first + kKnotThreads + threadIdx.x;
#pragma unroll 1
  while (k < p && !begins(k)) k += kKnotThreads;
  if (k < p) atomicMin(&next, k);
  __syncthreads();
  int begin = latest, end = next;
  cluster = before - 1;
#pragma unroll
  for (int w = kKnotThreads / 32 - 1; w >= 0; --w) {
    const unsigned up_to_own = w < warp ? ~0u : (w == warp ? ~0u >> (31 - lane) : 0);
    if (begun[w] & ~up_to_own) end = first + 32 * w + __ffs(begun[w] & ~up_to_own) - 1;
  }
#pragma unroll
  for (int w = 0; w < kKnotThreads / 32; ++w) {
    const unsigned up_to_own = w < warp ? ~0u : (w == warp ? ~0u >> (31 - lane) : 0);
    cluster += __popc(begun[w] & up_to_own);
    if (begun[w] & up_to_own) begin = first + 32 * w + 31 - __clz(begun[w] & up_to_own);
  }
  return {Wide::make(delta), score, begin, end};
}

// Takes out of the bins what count, which takes positives for negatives, adds for positive i at `own`. Of knots at its
// own position count may take it for below, for it compares unrounded scores: there, what it adds is the same on
// either side.
__device__ void take_out(int i, int64_t own, const SortedTables& to) {
  auto* bin = reinterpret_cast<unsigned long long*>(static_cast<Bin<uint64_t>*>(to.bins) + to.within[i]);
  atomicAdd(bin, static_cast<unsigned long long>(-own));
  atomicAdd(bin + 1, ~0ULL);
}

// The cells over the knots of Narrow, and what is compared with floats.
class Floats {
 public:
  __device__ Floats(const Members<Narrow>& positives, const SortedTables& to)
      : narrow_(positives.position), to_(to), x_(positives), p_(positives.end), unit_(1 / narrow_.scale) {
    low_ = upper(x_[0] - narrow_.half), high_ = upper(x_[p_ - 1] + narrow_.half);
    // Cells finer than floats serve nothing, and the bias must not round: |scale * score| stays below 2^22.
    const float farthest = fmaxf(fabsf(low_), fabsf(high_));
    const float wish = static_cast<float>(to.most_cells - 4) / (high_ - low_);  // inf where they are equal
    scale_ = fminf(wish, 0x1p22f / farthest);
    if (!(scale_ < 0x1p100f)) scale_ = 0;
    bias_ = rintf(0x1p23f + 2 - low_ * scale_);  // low falls in one of the first cells, whatever rounds
    cells_ = static_cast<int>(cell_of(high_, scale_, bias_)) + 1;
    if (cells_ < 1 || cells_ > to.most_cells) {
      scale_ = 0;
      bias_ = 0x1p23f;
      cells_ = 1;
    }
  }

  // The upper ends of the segments below the knots of positive i, and with the first positive that of the
  // last one.
  __device__ void write_uppers(int i) const {
    to_.upper[to_.left[i]] = upper(x_[i] - narrow_.half);
    to_.upper[to_.right[i]] = upper(x_[i] + narrow_.half);
    if (i == 0) to_.upper[2 * p_] = __int_as_float(0x7f800000);
  }

  // The starts of the cells [begin, begin + kRun): neighbouring cells mostly have no knot between them.
  static constexpr int kRun = 8;
  template <typename Index>
  __device__ void write_cells(int begin, Index* starts) const {
    if (begin > cells_) return;
    Side left = search_from(begin, -narrow_.half, 0), right = search_from(begin, narrow_.half, 0);
#pragma unroll 1
    for (int c = begin; c <= cells_ && c < begin + kRun; ++c) {
      skip_below(c, left);
      skip_below(c, right);
      starts[c] = static_cast<Index>(left.from + right.from);
    }
  }

  __device__ void write(Plan* plan) const {
    plan->low = low_;
    plan->high = high_;
    plan->cell_scale = scale_;
    plan->cell_bias = bias_;
    plan->cells = cells_;
  }

 private:
  // Smallest float at or above a knot: exact but for the last rounding, which goes outward.
  __device__ float upper(int64_t knot) const {
    return __double2float_ru((static_cast<double>(knot) - narrow_.offset) * unit_);
  }

  // The knots at `shift` from the positives, from one of them on, whose cell is known.
  struct Side {
    int64_t shift;
    int from;
    uint32_t cell;
  };

  __device__ Side side(int64_t shift, int from) const {
    return {shift, from, from < p_ ? cell_of(upper(x_[from] + shift), scale_, bias_) : ~0u};
  }

  // Skips the knots in cells below c.
  __device__ void skip_below(uint32_t c, Side& s) const {
    constexpr int kSteps = 4;  // mostly enough: a search holds up all lanes of the warp
#pragma unroll 1
    for (int step = 0; step < kSteps; ++step) {
      if (s.cell >= c) return;
      s = side(s.shift, s.from + 1);
    }
    if (s.cell < c) s = search_from(c, s.shift, s.from + 1);
  }

  // From the first of `from` and the later knots on that lies in cell c or a higher one.
  __device__ Side search_from(uint32_t c, int64_t shift, int from) const {
    const auto before = [&](int64_t knot) { return cell_of(upper(knot), scale_, bias_) < c; };
    return side(shift, first_of<kWays>(x_, from, p_, shift, before));
  }

  const Narrow& narrow_;
  const SortedTables& to_;
  const Members<Narrow>& x_;
  int p_;
  double unit_;  // a power of two
  float low_, high_, scale_, bias_;
  int cells_;
};

// The positions that sorted scores ask for; with none, every output is NaN.
__device__ PositionKind choose(const Input& input, const double* score, const Status& status,
                               Narrow& narrow) {
  const int64_t p = input.p, n = counted(input);
  if (status.found != p || status.invalid || status.nan) return PositionKind::kNone;
  const double lowest = score[0], highest = score[p - 1], delta = input.delta;
  // Floats must hold the knots, their distances, and slopes, which have 1 / (2 delta) for a factor.
  const bool in_range = delta > 0x1p-24 && delta < 0x1p24 && lowest > -0x1p120 && highest < 0x1p120;
  if (!in_range || input.logits.dtype == Dtype::kFloat64 || !Narrow::fits(lowest, highest, n, delta))
    return PositionKind::kWide;
  narrow = Narrow::make(lowest, n, delta);
  return PositionKind::kNarrow;
}

// What the rows of blocks of build_tables do.
enum Task : unsigned { kKnots, kRanks, kCells, kTasks };

__device__ void build_narrow(Task task, int i, const Members<Narrow>& x, const int64_t* index,
                             const SortedTables& to) {
  const Floats floats(x, to);
  const bool own = i < x.end;
  if (task == kKnots && own) {
    write_knots_of(i, x, to);
    floats.write_uppers(i);
  } else if (task == kRanks && own) {
    write_rank_of(i, x, to);
    if (index[i] >= 0) take_out(i, x[i], to);
  } else if (task == kCells) {
    if (i == 0) floats.write(to.plan);
    if (to.shared)
      floats.write_cells(Floats::kRun * i, static_cast<uint16_t*>(to.starts));
    else
      floats.write_cells(Floats::kRun * i, static_cast<uint32_t*>(to.starts));
  }
}

// All threads of a block call.
__device__ void build_wide(Task task, int i, const double* score, double delta, const SortedTables& to) {
  if (task == kCells) return;
  const int p = static_cast<int>(to.p);
  int which;
  Members<Wide> x = members_of(i, score, p, delta, which);
  if (i >= p) return;
  Wide& wide = x.position;
  const double origin = score[x.begin];
  // Room for clusters of one positive each, and for the most that lies between two of a cluster, 2 half and what rounds.
  const Cluster own{x.begin ? Wide::from_between(score[x.begin - 1], origin, delta) : -HUGE_VAL, origin,
                    x.begin * (6 * wide.half + 4), wide.units(origin, score[x.end - 1])};
  wide.clusters = &own;
  wide.count = 1;
  if (task == kRanks) return write_rank_of(i, x, to);
  write_knots_of(i, x, to);
  if (i == x.begin) to.clusters[which] = own;
  if (i == p - 1) to.plan->clusters = which + 1;
}

// build_tables: the plan, and positions, knots, begun, left, right, below and within of all positives; with Wide positions
// their clusters; with Narrow ones the upper ends and the cells over them, and what the positives of these logits
// (index >= 0) add to the bins, taken out of them.
//   in       status; score, ascending; index; empty bins
//   launch   kTasks rows of blocks of kKnotThreads, each of max(p, most_cells / Floats::kRun + 1) threads; no
//            block waits for another: a thread searches the sorted scores for what it writes. O(p log p)
//            work, with Wide positions O(p^2 / kKnotThreads)
__global__ void __launch_bounds__(kKnotThreads, 4)
    build_tables(Input input, const double* score, const int64_t* index, const Status* status,
                 SortedTables to) {
  const int i = static_cast<int>(blockIdx.x * kKnotThreads + threadIdx.x);
  const Task task{blockIdx.y};
  Narrow narrow;
  const PositionKind kind = choose(input, score, *status, narrow);
  if (i == 0 && task == kKnots) {
    to.plan->kind = kind;
    to.plan->narrow = narrow;
  }
  if (kind == PositionKind::kNarrow)
    build_narrow(task, i, {narrow, score, 0, static_cast<int>(to.p)}, index, to);
  else if (kind == PositionKind::kWide)
    build_wide(task, i, score, input.delta, to);
}

}  // namespace

void build(const Input& input, const Tables& tables, const Status* status, cudaStream_t stream) {
  const SortedTables to(input, tables.device);
  const int64_t runs = to.most_cells / Floats::kRun + 1;
  const unsigned columns = per_item(std::max(input.p, runs), kKnotThreads, kKnotThreads).blocks.x;
  launch("build_tables", build_tables, {dim3(columns, kTasks), kKnotThreads}, stream, input, tables.score,
         tables.index, status, to);
}

}  // namespace alrp::cuda::sorted

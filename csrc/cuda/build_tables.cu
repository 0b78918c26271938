// The second stage of the sorted form: the tables over the knots of the positives.
#include <algorithm>

#include "launch.cuh"
#include "sorted.cuh"
#include "stages.h"

namespace alrp::cuda::sorted {
namespace {

constexpr int kKnotThreads = 128;  // few, so that many multiprocessors share the searches

template <typename Int>
__device__ auto below(Int bound) {
  return [bound](Int knot) { return knot < bound; };
}

// Positive i's own knots: a merge, where each knot's place among all is its rank in both lists, KL and KR.
template <typename Int>
__device__ void write_knots_of(int i, Int half, const SortedTables& to) {
  const int p = static_cast<int>(to.p);
  const Int* x = static_cast<const Int*>(to.position);
  const Int own = x[i];
  const int left = i + first_of(x, 0, i, half, below(own - half));
  const int begun = first_of(x, i, p, -half, up_to(own + half)), right = i + begun;
  auto* knots = static_cast<Int*>(to.knots);
  knots[left] = own - half;
  knots[right] = own + half;
  to.begun[left] = i + 1;
  to.begun[right] = begun;
  to.left[i] = left;
  to.right[i] = right;
}

// How many knots lie below positive i, and how many at or below it.
template <typename Int>
__device__ void write_rank_of(int i, Int half, const SortedTables& to) {
  const int p = static_cast<int>(to.p);
  const Int* x = static_cast<const Int*>(to.position);
  const Int own = x[i];
  const int begun = first_of(x, half ? i : 0, p, -half, below(own));
  const int ended = first_of(x, 0, i, half, below(own));
  to.below[i] = begun + ended;
  // Few knots lie where a positive does.
  const auto past_ties = [&](int k, Int shift) {
    return k < p && x[k] + shift == own ? first_of(x, k, p, shift, up_to(own)) : k;
  };
  to.within[i] = past_ties(begun, -half) + past_ties(ended, half);
}

// Takes out of the bins what count, which takes positives for negatives, adds for positive i. Of knots at its own
// position count may take it for below, for it compares unrounded scores: there, what it adds is the same on
// either side.
__device__ void take_out(int i, const SortedTables& to) {
  const int64_t own = static_cast<const int64_t*>(to.position)[i];
  auto* bin = reinterpret_cast<unsigned long long*>(static_cast<Bin<uint64_t>*>(to.bins) + to.within[i]);
  atomicAdd(bin, static_cast<unsigned long long>(-own));
  atomicAdd(bin + 1, ~0ULL);
}

// The cells over the knots of Narrow, and what is compared with floats.
class Floats {
 public:
  __device__ Floats(const Narrow& narrow, const SortedTables& to)
      : narrow_(narrow),
        to_(to),
        x_(static_cast<const int64_t*>(to.position)),
        p_(static_cast<int>(to.p)),
        unit_(1 / narrow.scale) {
    low_ = upper(x_[0] - narrow.half), high_ = upper(x_[p_ - 1] + narrow.half);
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
    return side(shift, first_of(x_, from, p_, shift, before));
  }

  const Narrow& narrow_;
  const SortedTables& to_;
  const int64_t* x_;
  int p_;
  double unit_;  // a power of two
  float low_, high_, scale_, bias_;
  int cells_;
};

// What the rows of blocks of build_tables do.
enum Task : unsigned { kKnots, kRanks, kCells, kTasks };

// build_tables: knots, begun, left, right, below and within of all positives; with Narrow positions also the
// upper ends and the cells over them, and what the positives of these logits (index >= 0) add to the bins, taken
// out of them.
//   in       the plan, positions and bins of sort_positives; index
//   launch   kTasks rows of blocks of kKnotThreads, each of max(p, most_cells / Floats::kRun + 1) threads; no
//            block waits for another: a thread searches the sorted positions for what it writes. O(p log p)
//            work
__global__ void __launch_bounds__(kKnotThreads)
    build_tables(double delta, const int64_t* index, SortedTables to) {
  const Plan& plan = *to.plan;
  const int i = static_cast<int>(blockIdx.x * kKnotThreads + threadIdx.x), p = static_cast<int>(to.p);
  const unsigned task = blockIdx.y;
  if (task <= kRanks && i < p)
    with_positions(plan, delta, [&](const auto& position) {
      task == kKnots ? write_knots_of(i, position.half, to) : write_rank_of(i, position.half, to);
    });
  if (plan.kind != PositionKind::kNarrow) return;
  if (task == kRanks) {
    if (i < p && index[i] >= 0) take_out(i, to);
    return;
  }
  const Narrow narrow = plan.narrow;
  const Floats floats(narrow, to);
  if (task == kKnots && i < p) {
    floats.write_uppers(i);
  } else if (task == kCells) {
    if (i == 0) floats.write(to.plan);
    if (to.shared)
      floats.write_cells(Floats::kRun * i, static_cast<uint16_t*>(to.starts));
    else
      floats.write_cells(Floats::kRun * i, static_cast<uint32_t*>(to.starts));
  }
}

}  // namespace

void build(const Input& input, const Tables& tables, cudaStream_t stream) {
  const SortedTables to(input, tables.device);
  const int64_t runs = to.most_cells / Floats::kRun + 1;
  const unsigned columns = per_item(std::max(input.p, runs), kKnotThreads, kKnotThreads).blocks.x;
  launch("build_tables", build_tables, {dim3(columns, kTasks), kKnotThreads}, stream, input.delta,
         tables.index, to);
}

}  // namespace alrp::cuda::sorted

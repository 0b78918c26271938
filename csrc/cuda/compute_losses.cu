// From the bins of the sorted form: N_FP, the sums among the positives, the losses, and the tables of spread.
#include <type_traits>

#include "block.cuh"
#include "launch.cuh"
#include "sorted.cuh"
#include "stages.h"
#include "terms.cuh"

namespace alrp::cuda::sorted {
namespace {

// n_fp of every positive from the bins, which become their prefix sums.
template <typename Position>
__device__ void sum_bins(const Position& position, const SortedTables& t, double* n_fp) {
  auto* bins = static_cast<Bin<typename Position::Sum>*>(t.bins);
  const auto* knots = static_cast<const typename Position::Int*>(t.knots);
  const int p = static_cast<int>(t.p);
  const auto all = prefix_sums(2 * p + 1, [bins](int m) { return bins[m]; }, bins);
#pragma unroll 4
  for (int i = threadIdx.x; i < p; i += blockDim.x)
    n_fp[i] = count_of(bins[t.left[i]], bins[t.right[i]], all.count, knots[t.left[i]], position.half);
}

// Two sums at once, over i of weight(i) H(x - x_i), as functions of x: linear in each segment m, from the
// value at its lower end, t.value[m]. They start from 0 at the lowest knot, so that small values stay
// precise. kMirrored: sums of weight(i) H(x_i - x), which fall with x; knot k is then the (2p - 1 - k)-th,
// with the sign turned.
template <typename Int, bool kMirrored>
class StepSums {
 public:
  __device__ StepSums(const SortedTables& t, Int half)
      : t_(t),
        knots_(static_cast<const Int*>(t.knots)),
        p_(static_cast<int>(t.p)),
        per_unit_(half ? 1 / static_cast<double>(2 * half) : 0) {}

  // Writes t.prefix and t.value. A component whose weights are not finite is of no use; the other is
  // untouched. All threads call.
  template <typename Weight>
  __device__ void build(const Weight& weight) const {
    if (threadIdx.x == 0) t_.prefix[0] = t_.value[0] = {0, 0};
    prefix_sums(p_, [&](int i) { return weight(kMirrored ? p_ - 1 - i : i); }, t_.prefix + 1);
    const auto rise = [&](int k) -> TwoSums {
      return k ? slope(k) * static_cast<double>(knot(k) - knot(k - 1)) : TwoSums{0, 0};
    };
    if (per_unit_ != 0) {
      prefix_sums(2 * p_, rise, t_.value + 1);
    } else {  // jumps
#pragma unroll 1
      for (int k = threadIdx.x; k < 2 * p_; k += blockDim.x) t_.value[k + 1] = t_.prefix[begun(k)];
      __syncthreads();
    }
  }

  // Slope in segment m, per unit of position.
  __device__ TwoSums slope(int m) const {
    if (m == 0) return {0, 0};
    const int begins = begun(m - 1);
    return (t_.prefix[begins] - t_.prefix[m - begins]) * per_unit_;
  }

  // The sums at positive i.
  __device__ TwoSums at_positive(int i) const {
    const Int x = static_cast<const Int*>(t_.position)[i];
    const int m = kMirrored ? 2 * p_ - t_.below[i] : t_.within[i];  // at least 1: its own knot
    return t_.value[m] + slope(m) * static_cast<double>((kMirrored ? -x : x) - knot(m - 1));
  }

  __device__ Int knot(int k) const { return kMirrored ? -knots_[2 * p_ - 1 - k] : knots_[k]; }

 private:
  // Steps that have begun at knot k; k + 1 less these have ended.
  __device__ int begun(int k) const {
    if (!kMirrored) return t_.begun[k];
    const int rest = 2 * p_ - 1 - k;  // knots before the mirrored one
    return p_ - (rest ? rest - t_.begun[rest - 1] : 0);
  }

  const SortedTables& t_;
  const Int* knots_;
  int p_;
  double per_unit_;
};

// Sums among the positives: rank_pos, and s unless it is null.
template <typename Position>
__device__ void sum_pairs(const Position& position, const SortedTables& t, const double* score, double delta,
                          const Array& errors, const Sums& sums) {
  const int p = static_cast<int>(t.p);
  const double self = position.half ? 0.5 : 1.0;  // H(0), where k = i does not count
  const StepSums<typename Position::Int, true> steps(t, position.half);
  const auto error = [&](int i) { return sums.s ? load(errors, sums.place[i]) : 0.0; };
  bool infinite = false;
  steps.build([&](int i) -> TwoSums {
    const double weight = error(i);
    infinite |= !is_finite(weight);
    return {1, weight};
  });
  const bool by_pairs = __syncthreads_or(infinite);  // infinity and NaN do not go through prefix sums
#pragma unroll 2
  for (int i = threadIdx.x; i < p; i += blockDim.x) {
    const TwoSums sum = steps.at_positive(i);
    sums.rank_pos[i] = 1 + (sum.first - self);
    if (sums.s && !by_pairs) sums.s[i] = sum.second - self * error(i);
  }
  if (!sums.s || !by_pairs) return;
  const Step h = make_step(delta);
#pragma unroll 1
  for (int i = threadIdx.x; i < p; i += blockDim.x) {
    double sum = 0;
#pragma unroll 1
    for (int k = 0; k < p; ++k)
      if (k != i) sum += weighted(step(h, score[k], score[i]), error(k));
    sums.s[i] = sum;
  }
}

// The tables of spread, t.base and t.slope, of the shares; and dL_loc/dE of the smooth order where
// error_gradient is not null.
template <typename Position>
__device__ void write_spread(const Position& position, const SortedTables& t, const double* share,
                             const Sums& sums, double* error_gradient, const double* poison) {
  constexpr double kMost = 1e15;  // beyond it, sums times the incoming gradient might not fit float
  const int p = static_cast<int>(t.p);
  const StepSums<typename Position::Int, false> steps(t, position.half);
  const auto per_rank = [&](int i) {
    return 1 / ((sums.rank_pos[i] + sums.n_fp[i]) * static_cast<double>(p));
  };
  bool too_large = false;
  steps.build([&](int i) -> TwoSums {
    too_large |= !(fabs(share[i]) * p < kMost);
    return {share[i], error_gradient ? per_rank(i) : 0.0};
  });
  too_large = __syncthreads_or(too_large);
  if (threadIdx.x == 0) t.plan->spreads = !too_large;
#pragma unroll 2
  for (int m = threadIdx.x; m <= 2 * p; m += blockDim.x) {
    double base = t.value[m].first, slope = steps.slope(m).first;
    if constexpr (std::is_same_v<Position, Narrow>) {
      // Spread works on floats: the value at the segment's first float, and the slope per unit of score.
      if (m) base += slope * static_cast<double>(position.of(t.upper[m - 1]) - steps.knot(m - 1));
      slope *= position.scale;
    }
    t.base[m] = base;
    t.slope[m] = slope;
  }
  if (!error_gradient) return;
  const double self = position.half ? 0.5 : 1.0;  // H(0), where k = i has 1
#pragma unroll 2
  for (int i = threadIdx.x; i < p; i += blockDim.x)
    error_gradient[sums.place[i]] = steps.at_positive(i).second + (1 - self) * per_rank(i) + *poison;
}

// compute_losses: from the bins to losses and the tables that backward reads.
//   in       all of SortedTables after build_tables and count; tables.score; place
//   out      all of Output but index and score; sums; base, slope and plan.spreads
//   launch   one_block(p); O(p) work
//   exact    scans in a fixed order: the same bits on every device
__global__ void __launch_bounds__(kMostThreads, 1)
    compute_losses(Input input, SortedTables t, Spec spec, Sums sums, Output output) {
  const Tables& tables = output.tables;
  const bool has_positions = with_positions(*t.plan, input.delta, [&](const auto& position) {
    sum_bins(position, t, sums.n_fp);
    sum_pairs(position, t, tables.score, input.delta, spec.loc_errors, sums);
    __syncthreads();
    compute_terms(spec, sums, output, t.p);
    __syncthreads();
    write_spread(position, t, tables.share, sums, spec.loss == Loss::kALRP ? tables.error_gradient : nullptr,
                 tables.poison);
  });
  if (has_positions) return;
#pragma unroll 1
  for (int i = threadIdx.x; i < t.p; i += blockDim.x) {
    sums.n_fp[i] = 0;
    sums.rank_pos[i] = 1;
    if (sums.s) sums.s[i] = 0;
    if (tables.error_gradient) tables.error_gradient[i] = quiet_nan();
  }
  __syncthreads();
  compute_terms(spec, sums, output, t.p);
}

// The tables of spread once more, of shares that came after compute_losses.
//   out      base, slope and plan.spreads
//   launch   one_block(p); O(p) work
__global__ void __launch_bounds__(kMostThreads, 1)
    drive_spread(double delta, SortedTables t, const double* share) {
  with_positions(*t.plan, delta,
                 [&](const auto& position) { write_spread(position, t, share, Sums{}, nullptr, nullptr); });
}

}  // namespace

void drive(const Input& input, const Tables& tables, cudaStream_t stream) {
  launch("drive_spread", drive_spread, one_block(input.p), stream, input.delta,
         SortedTables(input, tables.device), tables.share);
}

void finish(const Input& input, const Spec& spec, const Sums& sums, const Output& output,
            cudaStream_t stream) {
  launch("compute_losses", compute_losses, one_block(input.p), stream, input,
         SortedTables(input, output.tables.device), spec, sums, output);
}

}  // namespace alrp::cuda::sorted

// The P-sized stages of the sorted form after count: N_FP, the sums among the positives, the losses, and the
// tables of spread.
#include "backend.h"
#include "block.cuh"
#include "launch.h"
#include "sorted.cuh"
#include "terms.cuh"

namespace alrp::cuda {
namespace {

template <typename Sum>
struct AddBins {
  __device__ Bin<Sum> operator()(const Bin<Sum>& a, const Bin<Sum>& b) const {
    return {a.positions + b.positions, a.count + b.count};
  }
};

// n_fp of every positive from the bins, which become their prefix sums.
template <typename Int, typename Sum>
__device__ void sum_bins(const SortedTables& t, Int half, double* n_fp) {
  auto* bins = static_cast<Bin<Sum>*>(t.bins);
  const auto* knots = static_cast<const Int*>(t.knots);
  const int p = static_cast<int>(t.p);
  Bin<Sum> carry{0, 0};
#pragma unroll 1
  for (int base = 0; base <= 2 * p; base += kBlock) {
    const int m = base + threadIdx.x;
    const Bin<Sum> own = m <= 2 * p ? bins[m] : Bin<Sum>{0, 0};
    const Bin<Sum> sum = carried_scan(own, carry, AddBins<Sum>());
    if (m <= 2 * p) bins[m] = sum;
  }
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < p; i += kBlock)
    n_fp[i] = count_of(bins[t.left[i]], bins[t.right[i]], carry.count, knots[t.left[i]], half);
}

// The knots as they are, for sum over i of weight[i] H(x - x_i), or mirrored, for sum over i of weight[i]
// H(x_i - x), which falls with x: knot k is then the (2p - 1 - k)-th, with the sign turned.
template <typename Int, bool kMirrored>
struct View {
  const Int* knots;
  const int32_t* begun_;
  int p;

  __device__ Int knot(int k) const { return kMirrored ? -knots[2 * p - 1 - k] : knots[k]; }

  // Positives that have begun and ended at knot k.
  __device__ void state(int k, int& begun, int& ended) const {
    if (kMirrored) {
      const int rest = 2 * p - 1 - k;  // knots before the mirrored one
      begun = p - (rest ? rest - begun_[rest - 1] : 0);
    } else {
      begun = begun_[k];
    }
    ended = k + 1 - begun;
  }
};

// t.base and t.slope of sum over i of weight[i] H: base[m] + slope[m] (x - knot[m - 1]) in segment m. It
// starts from 0 at the lowest knot, so that small values stay precise. `weight` in the order of the view;
// finite.
template <typename Int, bool kMirrored>
__device__ void make_spread(const SortedTables& t, Int half, const double* weight) {
  const int p = static_cast<int>(t.p);
  const View<Int, kMirrored> view{static_cast<const Int*>(t.knots), t.begun, p};
  double carry = 0;
  if (threadIdx.x == 0) t.prefix[0] = t.base[0] = t.slope[0] = 0;
  __syncthreads();
#pragma unroll 1
  for (int base = 0; base < p; base += kBlock) {
    const int i = base + threadIdx.x;
    const double sum = carried_scan(i < p ? weight[kMirrored ? p - 1 - i : i] : 0.0, carry, Plus());
    if (i < p) t.prefix[i + 1] = sum;
  }
  __syncthreads();
  const double per_unit = half ? 1 / static_cast<double>(2 * half) : 0;
  double value = 0;
#pragma unroll 1
  for (int base = 0; base < 2 * p; base += kBlock) {
    const int k = base + threadIdx.x;
    double rise = 0, slope = 0;
    int begun = 0, ended = 0;
    if (k < 2 * p) {
      if (k) {
        view.state(k - 1, begun, ended);
        rise = (t.prefix[begun] - t.prefix[ended]) * per_unit *
               static_cast<double>(view.knot(k) - view.knot(k - 1));
      }
      view.state(k, begun, ended);
      slope = (t.prefix[begun] - t.prefix[ended]) * per_unit;
    }
    const double sum = carried_scan(rise, value, Plus());
    if (k < 2 * p) {
      t.base[k + 1] = half ? sum : t.prefix[begun];
      t.slope[k + 1] = slope;
    }
  }
  __syncthreads();
}

// The sum that make_spread laid out, at positive i.
template <typename Int, bool kMirrored>
__device__ double at_positive(const SortedTables& t, int i) {
  const int p = static_cast<int>(t.p);
  const auto* knots = static_cast<const Int*>(t.knots);
  const Int x = static_cast<const Int*>(t.position)[i];
  const auto below = static_cast<int>(rank_in<Int>(knots, 2 * p, x, !kMirrored));
  const int m = kMirrored ? 2 * p - below : below;  // at least 1: its own knot
  const View<Int, kMirrored> view{knots, t.begun, p};
  return t.base[m] + t.slope[m] * static_cast<double>((kMirrored ? -x : x) - view.knot(m - 1));
}

// Sums among the positives: rank_pos, and s unless it is null.
template <typename Int>
__device__ void sum_pairs(const SortedTables& t, Int half, const double* score, double delta,
                          const Array& errors, const Sums& sums) {
  const int p = static_cast<int>(t.p);
  const double self = half ? 0.5 : 1.0;  // H(0), where k = i does not count
#pragma unroll 1
  for (int i = threadIdx.x; i < p; i += kBlock) t.weight[i] = 1;
  __syncthreads();
  make_spread<Int, true>(t, half, t.weight);
#pragma unroll 1
  for (int i = threadIdx.x; i < p; i += kBlock) sums.rank_pos[i] = 1 + (at_positive<Int, true>(t, i) - self);
  if (!sums.s) return;
  __syncthreads();
  bool strange = false;
#pragma unroll 1
  for (int i = threadIdx.x; i < p; i += kBlock) {
    const double error = load(errors, sums.place[i]);
    strange |= !is_finite(error);
    t.weight[i] = error;
  }
  if (__syncthreads_or(strange)) {  // pair by pair: infinity and NaN do not go through prefix sums
    const Step h = make_step(delta);
#pragma unroll 1
    for (int i = threadIdx.x; i < p; i += kBlock) {
      double sum = 0;
#pragma unroll 1
      for (int k = 0; k < p; ++k)
        if (k != i) sum += weighted(step(h, score[k], score[i]), t.weight[k]);
      sums.s[i] = sum;
    }
    return;
  }
  make_spread<Int, true>(t, half, t.weight);
#pragma unroll 1
  for (int i = threadIdx.x; i < p; i += kBlock) sums.s[i] = at_positive<Int, true>(t, i) - self * t.weight[i];
}

// dL_loc/dE of the smooth order.
template <typename Int>
__device__ void spread_errors(const SortedTables& t, Int half, const Sums& sums, const Tables& tables) {
  const int p = static_cast<int>(t.p);
  const double self = half ? 0.5 : 1.0;  // H(0), where k = i has 1
#pragma unroll 1
  for (int i = threadIdx.x; i < p; i += kBlock)
    t.weight[i] = 1 / ((sums.rank_pos[i] + sums.n_fp[i]) * static_cast<double>(p));
  __syncthreads();
  make_spread<Int, false>(t, half, t.weight);
#pragma unroll 1
  for (int i = threadIdx.x; i < p; i += kBlock)
    tables.error_gradient[sums.place[i]] =
        at_positive<Int, false>(t, i) + (1 - self) * t.weight[i] + *tables.poison;
  __syncthreads();
}

// The tables of spread: the shares' prefix sums.
template <typename Int>
__device__ void spread_shares(const SortedTables& t, Int half, const double* share) {
  constexpr double kMost = 1e15;  // beyond it, sums times the incoming gradient might not fit float
  const int p = static_cast<int>(t.p);
  bool strange = false;
#pragma unroll 1
  for (int i = threadIdx.x; i < p; i += kBlock) strange |= !(fabs(share[i]) * p < kMost);
  strange = __syncthreads_or(strange);
  if (threadIdx.x == 0) t.plan->spreads = !strange;
  if (!strange) make_spread<Int, false>(t, half, share);
}

// Spread works on floats: the value at the float that begins the segment, and the slope per unit of score.
__device__ void to_floats(const Plan& plan, const SortedTables& t) {
  const auto* knots = static_cast<const int64_t*>(t.knots);
#pragma unroll 1
  for (int m = 1 + threadIdx.x; m <= 2 * static_cast<int>(t.p); m += kBlock) {
    const int64_t beyond = plan.narrow.of(t.upper[m - 1]) - knots[m - 1];
    t.base[m] += t.slope[m] * static_cast<double>(beyond);
    t.slope[m] *= plan.narrow.scale;
  }
}

template <typename Position>
__device__ void finish_by(const Position& position, const SortedTables& t, double delta, const Spec& spec,
                          const Sums& sums, const Output& output) {
  using Int = typename Position::Int;
  const Tables& tables = output.tables;
  sum_bins<Int, typename Position::Sum>(t, position.half, sums.n_fp);
  sum_pairs<Int>(t, position.half, tables.score, delta, spec.loc_errors, sums);
  __syncthreads();
  compute_terms(spec, sums, output, t.p);
  __syncthreads();
  if (tables.error_gradient && spec.loss == Loss::kALRP) spread_errors<Int>(t, position.half, sums, tables);
  spread_shares<Int>(t, position.half, tables.share);
}

// finish: from the bins to losses and the tables that backward reads.
//   in       all of SortedTables as prepare and count left it; tables.score; place
//   out      all of Output but index and score; sums; base, slope and plan.spreads
//   launch   one block of kBlock threads; O(p log p) work
//   exact    scans in a fixed order: the same bits on every device
__global__ void __launch_bounds__(kBlock, 1)
    finish(SortedTables t, double delta, Spec spec, Sums sums, Output output) {
  const int p = static_cast<int>(t.p);
  const Plan plan = *t.plan;
  if (plan.form == Form::kNarrow) {
    finish_by(plan.narrow, t, delta, spec, sums, output);
    to_floats(plan, t);
  } else if (plan.form == Form::kWide) {
    finish_by(Wide::make(delta), t, delta, spec, sums, output);
  } else {
#pragma unroll 1
    for (int i = threadIdx.x; i < p; i += kBlock) {
      sums.n_fp[i] = 0;
      sums.rank_pos[i] = 1;
      if (sums.s) sums.s[i] = 0;
      if (output.tables.error_gradient) output.tables.error_gradient[i] = quiet_nan();
    }
    __syncthreads();
    compute_terms(spec, sums, output, p);
  }
}

// The tables of spread once more, of shares that came after finish.
//   out      base, slope and plan.spreads
//   launch   one block of kBlock threads; O(p log p) work
__global__ void __launch_bounds__(kBlock, 1) drive_spread(SortedTables t, double delta, const double* share) {
  const Plan plan = *t.plan;
  if (plan.form == Form::kNarrow) {
    spread_shares<int64_t>(t, plan.narrow.half, share);
    to_floats(plan, t);
  } else if (plan.form == Form::kWide) {
    spread_shares<int128>(t, Wide::make(delta).half, share);
  }
}

}  // namespace

void CudaBackend::sorted_drive(const Input& input, const Tables& tables) {
  drive_spread<<<1, kBlock, 0, stream_>>>(SortedTables(input, tables.device), input.delta, tables.share);
  check_launch("drive_spread");
}

void CudaBackend::sorted_terms(const Input& input, const Spec& spec, const Sums& sums, const Output& output) {
  finish<<<1, kBlock, 0, stream_>>>(SortedTables(input, output.tables.device), input.delta, spec, sums,
                                    output);
  check_launch("finish");
}

}  // namespace alrp::cuda

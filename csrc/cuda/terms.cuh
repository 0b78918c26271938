// Losses, errors and shares of the positives from their sums.
#pragma once

#include "../losses.h"
#include "array.cuh"
#include "block.cuh"

namespace alrp::cuda {

// Sum of errors in the hard order: located[r] = sum of E over the positives at r and above, from the top
// down.
__device__ inline void hard_sums(const Array& loc_errors, const int64_t* place, int64_t p, double* located) {
  double carry = 0;
#pragma unroll 1
  for (int64_t base = 0; base < p; base += blockDim.x) {
    const int64_t r = p - 1 - (base + threadIdx.x);
    const double sum = carried_scan(r >= 0 ? load(loc_errors, place[r]) : 0.0, carry, Plus());
    if (r >= 0) located[r] = sum;
  }
  __syncthreads();
}

// Z of the loss, in every thread. All threads call.
__device__ inline double normaliser(Loss loss, int64_t p) {
  if (loss != Loss::kNDCG || p == 0) return static_cast<double>(p > 0 ? p : 1);
  double own = 0;
#pragma unroll 1
  for (int64_t r = 1 + threadIdx.x; r <= p; r += blockDim.x) own += gain(static_cast<double>(r));
  return block_sum(own);
}

// Losses, rank, precision, and the tables that backward reads.
//   sums     p: place, rank_pos, n_fp, s (aLRP)
//   output   all of Output but index and score; error_gradient only for the hard order
//   launch   one block of whole warps, all of whose threads call; O(p) work
//   exact    sums and scans in a fixed order: the same bits on every device
__device__ inline void compute_terms(const Spec& spec, const Sums& sums, const Output& output, int64_t p) {
  const Tables tables = output.tables;
  const Status status = *output.status;
  const double z = normaliser(spec.loss, p);
  const double poison = status.nan || status.invalid || status.found != p ? quiet_nan() : 0.0;
  const bool hard = spec.loss == Loss::kALRPHard;
  if (hard)
    hard_sums(spec.loc_errors, sums.place, p, tables.gradient);  // each is read before its place is written
  double cls = 0, loc = 0, best_precision = 0, weights = 0;
#pragma unroll 1
  for (int64_t base = 0; base < p; base += blockDim.x) {  // ascending by score
    const int64_t r = base + threadIdx.x;
    const bool live = r < p;
    const double n_fp = live ? sums.n_fp[r] : 0, rank_pos = live ? sums.rank_pos[r] : 1,
                 rank = rank_pos + n_fp;
    const double precision = rank_pos / rank;
    const int64_t place = live ? sums.place[r] : 0;
    Terms terms{0, 0, 0};
    switch (spec.loss) {  // the same branch for every thread: the scans hold barriers
      case Loss::kALRP:
        if (live) terms = alrp_terms(n_fp, rank, sums.s[r], load(spec.loc_errors, place) + sums.s[r]);
        break;
      case Loss::kALRPHard: {
        // dL_loc/dE_k of the hard order: over the positives at or below k
        const double below = carried_scan(live ? 1 / rank : 0.0, weights, Plus());
        if (live) terms = alrp_terms(n_fp, rank, sums.s[r], tables.gradient[r]);
        if (live && tables.error_gradient) tables.error_gradient[place] = below / z + poison;
        break;
      }
      case Loss::kAP:
        if (live) terms = ap_terms(n_fp, rank);
        break;
      case Loss::kAPInterpolated: {
        const double best = carried_scan(live ? precision : 0.0, best_precision, Max());
        if (live) terms = interpolated_ap_terms(best);
        break;
      }
      case Loss::kRankSort:
        if (live) terms = rank_terms(n_fp, rank_pos, spec.tie);
        break;
      case Loss::kNDCG:
        if (live) terms = ndcg_terms(n_fp, rank_pos);
        break;
      case Loss::kGiven:
        break;
    }
    if (!live) continue;
    cls += terms.cls;
    loc += terms.loc;
    tables.share[r] = share(terms.error, n_fp, spec.eps, z);
    tables.gradient[r] = positive_gradient(terms.error, n_fp, spec.eps, z) + poison;
    store({output.rank, output.values}, place, rank + poison);
    store({output.precision, output.values}, place, precision + poison);
  }
  const double cls_sum = block_sum(cls), loc_sum = block_sum(loc);
  if (threadIdx.x == 0) {
    *tables.poison = poison;
    store({output.cls, output.values}, 0, cls_sum / z + poison);
    store({output.loc, output.values}, 0, loc_sum / z + poison);
  }
}

}  // namespace alrp::cuda

// What makes a loss: value l(i), error e(i) = l(i) - l*(i), and the share of the error that goes to
// each negative. Arithmetic on the P sums that the two products leave; for the host and for devices.
#pragma once

#include <cmath>

#include "step.h"

namespace alrp {

// Values that are averaged over the positives, and the error that drives the gradient of the scores.
struct Terms {
  double cls;
  double loc;
  double error;
};

// AP Loss, Eq. 2 and 4: l(i) = N_FP(i) / rank(i), l* = 0.
ALRP_HD Terms ap_terms(double n_fp, double rank) { return {n_fp / rank, 0.0, n_fp / rank}; }

// AP Loss, interpolated: l(i) = 1 - the best precision among the positives scored at or below i.
ALRP_HD Terms interpolated_ap_terms(double best_precision) {
  return {1 - best_precision, 0.0, 1 - best_precision};
}

// Gain of rank r: 1 / log2(1 + r).
ALRP_HD double gain(double r) { return 1 / log2(1 + r); }

// NDCG Loss: l(i) = g(rank+) - g(rank), l* = 0, g the gain. As a quotient: where N_FP is small beside rank+, the
// gains are nearly equal, and their difference would lose its digits.
ALRP_HD Terms ndcg_terms(double n_fp, double rank_pos) {
  constexpr double kPerBit = 1.4426950408889634;  // 1 / ln 2
  const double bits = log2(1 + rank_pos);
  const double more = log1p(n_fp / (1 + rank_pos)) * kPerBit;  // log2(1 + rank) - log2(1 + rank+)
  const double loss = more / (bits * (bits + more));
  return {loss, 0.0, loss};
}

// aLRP Loss, Eq. 9-14: l(i) = (N_FP + E_i + S_i) / rank, l*(i) = E_i / rank. `located` is the sum of errors
// that L_loc divides by the rank: E_i + S_i, or the sum over the hard order.
ALRP_HD Terms alrp_terms(double n_fp, double rank, double s, double located) {
  return {n_fp / rank, located / rank, (n_fp + s) / rank};
}

// Rank & Sort Loss (Oksuz, Cam, Akbas, Kalkan, ICCV 2021), its rank part: l(i) = N_FP / rank, l* = 0. rank+ counts
// i itself by its step, `tie` = H(0), not by 1.
ALRP_HD Terms rank_terms(double n_fp, double rank_pos, double tie) {
  return ap_terms(n_fp, rank_pos - 1 + tie + n_fp);
}

// Sums of a positive i over the positives k, i among them, for its sort error: of H(x_ik), and of H(x_ik) times the
// distance of the labels, over the k with y_k >= y_i and over those with y_k < y_i.
struct SortSums {
  double above, below;
  double above_distance, below_distance;
};

ALRP_HD void add_pair(double h, double difference, SortSums& sums) {  // difference: y_k - y_i
  const double above = difference < 0 ? 0.0 : h, below = h - above;
  sums.above += above;
  sums.below += below;
  sums.above_distance += above * difference;
  sums.below_distance -= below * difference;
}

// Its sort part: the mean of 1 - y_k by H(x_ik) over all k, less that over the k with y_k >= y_i. Written by distances
// from y_i, so that no term cancels: it is never below 0, and 0 where nothing lower ranks with i.
ALRP_HD double sort_error(const SortSums& sums) {
  return (sums.below_distance + sums.below / sums.above * sums.above_distance) / (sums.above + sums.below);
}

// e(i) / (Z norm(i)), what the weight of negative j is multiplied by for its gradient, where norm(i) is the sum
// of the weights; 0 where N_FP(i) <= eps.
ALRP_HD double share(double error, double n_fp, double norm, double eps, double z) {
  return n_fp > eps ? error / (z * norm) : 0.0;
}

// The same for p(j|i) = H(x_ij) / N_FP(i): the weights are H(x_ij). Of a sort error likewise, where the lower
// positives, with the sum `below`, are what the negatives are elsewhere.
ALRP_HD double share(double error, double n_fp, double eps, double z) {
  return share(error, n_fp, n_fp, eps, z);
}

// dL/ds_i of a positive: -e(i) / Z; 0 where N_FP(i) <= eps.
ALRP_HD double positive_gradient(double error, double n_fp, double eps, double z) {
  return n_fp > eps ? -error / z : 0.0;
}

}  // namespace alrp

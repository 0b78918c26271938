// What tells the losses apart: value l(i), error e(i) = l(i) - l*(i), and the share of the error that goes to
// each negative. P-sized arithmetic on the sums that the two products leave; for the host and for devices.
#pragma once

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

// aLRP Loss, Eq. 9-14: l(i) = (N_FP + E_i + S_i) / rank, l*(i) = E_i / rank. `located` is the sum of errors
// that L_loc divides by the rank: E_i + S_i, or the sum over the hard order.
ALRP_HD Terms alrp_terms(double n_fp, double rank, double s, double located) {
  return {n_fp / rank, located / rank, (n_fp + s) / rank};
}

// e(i) / (Z norm(i)), what the weight of negative j is multiplied by for its gradient, where norm(i) is the sum
// of the weights; 0 where N_FP(i) <= eps.
ALRP_HD double share(double error, double n_fp, double norm, double eps, double z) {
  return n_fp > eps ? error / (z * norm) : 0.0;
}

// The same for p(j|i) = H(x_ij) / N_FP(i): the weights are H(x_ij).
ALRP_HD double share(double error, double n_fp, double eps, double z) {
  return share(error, n_fp, n_fp, eps, z);
}

// dL/ds_i of a positive: -e(i) / Z; 0 where N_FP(i) <= eps.
ALRP_HD double positive_gradient(double error, double n_fp, double eps, double z) {
  return n_fp > eps ? -error / z : 0.0;
}

}  // namespace alrp

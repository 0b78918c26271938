#include "terms.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "../losses.h"
#include "array.h"
#include "maps.h"

namespace alrp::cpu {
namespace {

// Sum of the errors of all positives that rank at or above r in the hard order.
std::vector<double> hard_sums(const Spec& spec, const Sums& sums, int64_t p) {
  std::vector<double> located(p);
  double sum = 0;
  for (int64_t r = p - 1; r >= 0; --r) located[r] = sum += load(spec.loc_errors, sums.place[r]);
  return located;
}

// Z of the loss.
double normaliser(Loss loss, int64_t p) {
  if (loss != Loss::kNDCG || p == 0) return static_cast<double>(std::max<int64_t>(1, p));
  double sum = 0;
  for (int64_t r = 1; r <= p; ++r) sum += gain(static_cast<double>(r));
  return sum;
}

}  // namespace

void compute_terms(const Input& input, const Spec& spec, const Sums& sums, const Output& output) {
  const int64_t p = input.p;
  const Tables& tables = output.tables;
  const double z = normaliser(spec.loss, p);
  const Status& status = *output.status;
  const bool bad = status.nan || status.invalid || status.found != p;
  const double poison = bad ? std::numeric_limits<double>::quiet_NaN() : 0.0;
  *tables.poison = poison;

  std::vector<double> located;
  if (spec.loss == Loss::kALRPHard) located = hard_sums(spec, sums, p);
  double cls = 0, loc = 0, best_precision = 0, weights = 0;
  for (int64_t r = 0; r < p; ++r) {  // ascending by score
    const double n_fp = sums.n_fp[r], rank = sums.rank_pos[r] + n_fp, precision = sums.rank_pos[r] / rank;
    const int64_t place = sums.place[r];
    Terms terms;
    switch (spec.loss) {
      case Loss::kALRP:
        terms = alrp_terms(n_fp, rank, sums.s[r], load(spec.loc_errors, place) + sums.s[r]);
        break;
      case Loss::kALRPHard:
        terms = alrp_terms(n_fp, rank, sums.s[r], located[r]);
        weights += 1 / rank;  // dL_loc/dE_k of the hard order: over the positives at or below k
        if (tables.error_gradient) tables.error_gradient[place] = weights / z + poison;
        break;
      case Loss::kAP:
        terms = ap_terms(n_fp, rank);
        break;
      case Loss::kAPInterpolated:
        best_precision = std::max(best_precision, precision);
        terms = interpolated_ap_terms(best_precision);
        break;
      case Loss::kRankSort:
        terms = rank_terms(n_fp, sums.rank_pos[r], spec.tie);
        break;
      case Loss::kNDCG:
        terms = ndcg_terms(n_fp, sums.rank_pos[r]);
        break;
      case Loss::kGiven:
        terms = {0, 0, 0};
        break;
    }
    cls += terms.cls;
    loc += terms.loc;
    tables.share[r] = share(terms.error, n_fp, spec.eps, z);
    tables.gradient[r] = positive_gradient(terms.error, n_fp, spec.eps, z) + poison;
    store({output.rank, output.values}, place, rank + poison);
    store({output.precision, output.values}, place, precision + poison);
  }
  store({output.cls, output.values}, 0, cls / z + poison);
  store({output.loc, output.values}, 0, loc / z + poison);
}

std::vector<double> rank_weights(const Sums& sums, int64_t p) {
  std::vector<double> weight(p);
  for (int64_t r = 0; r < p; ++r)
    weight[r] = 1 / ((sums.rank_pos[r] + sums.n_fp[r]) * static_cast<double>(p));
  return weight;
}

void take_errors(const Input& input, const Drive& drive, const Tables& tables) {
  for (int64_t r = 0; r < input.p; ++r) {
    const double error = drive.errors[drive.place[r]], n_fp = drive.n_fp[r];
    tables.share[r] = share(error, n_fp, drive.norm[r], drive.eps, *drive.z);
    tables.gradient[r] = positive_gradient(error, n_fp, drive.eps, *drive.z) + *tables.poison;
  }
}

void write_positives(const Input& input, const Tables& tables, const Gradients& gradients) {
  if (gradients.grad_cls) {
    const double scale = load_scalar(gradients.grad_cls, gradients.incoming);
    const double sort = gradients.grad_sort ? load_scalar(gradients.grad_sort, gradients.incoming) : 0;
    for (int64_t r = 0; r < input.p; ++r) {
      if (tables.index[r] < 0) continue;
      double gradient = tables.gradient[r] * scale;
      if (gradients.grad_sort) gradient += tables.error_gradient[r] * sort;
      store_gradient(input, tables.index[r], gradient);
    }
  }
  if (gradients.loc_errors.data) {
    const double scale = load_scalar(gradients.grad_loc, gradients.incoming);
    for (int64_t r = 0; r < input.p; ++r) store(gradients.loc_errors, r, tables.error_gradient[r] * scale);
  }
}

}  // namespace alrp::cpu

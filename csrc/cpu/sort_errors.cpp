// The sort errors of Rank & Sort, pair by pair of the positives, on the CPU.

#include <algorithm>

#include "../losses.h"
#include "array.h"
#include "clones.h"
#include "pairs.h"
#include "terms.h"

namespace alrp::cpu {
namespace {

// The sums of `size` <= kRowTile positives from `first` on, over the p - begin positives from `begin` on.
ALRP_LOOP void sum_labels(const double* score, const double* label, int64_t first, int64_t size,
                          int64_t begin, int64_t p, Step h, SortSums* sums) {
  double rows[kRowTile] = {}, labels[kRowTile] = {}, above[kRowTile] = {}, below[kRowTile] = {},
         above_distance[kRowTile] = {}, below_distance[kRowTile] = {};
  std::copy(score + first, score + first + size, rows);
  std::copy(label + first, label + first + size, labels);
  for (int64_t k = begin; k < p; ++k)
    for (int i = 0; i < kRowTile; ++i) {
      SortSums s{above[i], below[i], above_distance[i], below_distance[i]};
      add_pair(step(h, score[k], rows[i]), label[k] - labels[i], s);
      above[i] = s.above;
      below[i] = s.below;
      above_distance[i] = s.above_distance;
      below_distance[i] = s.below_distance;
    }
  for (int64_t i = 0; i < size; ++i) sums[i] = {above[i], below[i], above_distance[i], below_distance[i]};
}

// The gradients that positives i < end of a higher label send to `size` <= kRowTile positives from `first` on.
ALRP_LOOP void sum_shares(const double* score, const double* label, const double* share, int64_t first,
                          int64_t size, int64_t end, Step h, double* sums) {
  double columns[kRowTile] = {}, labels[kRowTile] = {}, acc[kRowTile] = {};
  std::copy(score + first, score + first + size, columns);
  std::copy(label + first, label + first + size, labels);
  for (int64_t i = 0; i < end; ++i)
    for (int k = 0; k < kRowTile; ++k) {
      const double sent = share[i] * step(h, columns[k], score[i]);
      acc[k] += label[i] > labels[k] ? sent : 0.0;
    }
  std::copy(acc, acc + size, sums);
}

}  // namespace

void compute_sort_errors(const Input& input, const Spec& spec, const SortErrors& errors,
                         const Output& output) {
  const Step h = make_step(input.delta);
  const int64_t p = input.p;
  const Tables& tables = output.tables;
  const double z = static_cast<double>(p), poison = *tables.poison;
  const double* score = tables.score;
  double* gradient = tables.error_gradient;
  for (int64_t r = 0; r < p; ++r)  // what was not found has any label: every result is NaN
    errors.label[r] = errors.label_at[r] >= 0 ? load(spec.labels, errors.label_at[r]) : 0.0;
  // Scores ascend, and H with them: columns below `begin` give a tile nothing.
  parallel_tiles(p, [&](int64_t first, int64_t size) {
    SortSums sums[kRowTile];
    const double* begin = std::partition_point(
        score, score + first, [&](double column) { return step(h, column, score[first]) == 0; });
    by_level<sum_labels>(score, errors.label, first, size, begin - score, p, h, sums);
    for (int64_t i = 0; i < size; ++i) {
      const int64_t r = first + i;
      errors.error[r] = sort_error(sums[i]);
      errors.share[r] = share(errors.error[r], sums[i].below, spec.eps, z);
      if (gradient)  // not poisoned: write_positives() adds it to what is
        gradient[r] = positive_gradient(errors.error[r], sums[i].below, spec.eps, z);
    }
  });
  double sum = 0;
  for (int64_t r = 0; r < p; ++r) sum += errors.error[r];
  store({output.loc, output.values}, 0, sum / z + poison);
  if (!gradient) return;
  parallel_tiles(p, [&](int64_t first, int64_t size) {
    const double highest = score[first + size - 1];
    const double* end =
        std::partition_point(score + first, score + p, [&](double row) { return step(h, highest, row) > 0; });
    double sums[kRowTile];
    by_level<sum_shares>(score, errors.label, errors.share, first, size, end - score, h, sums);
    for (int64_t k = 0; k < size; ++k) gradient[first + k] += sums[k];
  });
}

}  // namespace alrp::cpu

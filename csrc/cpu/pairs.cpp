#include "pairs.h"

#include "clones.h"

namespace alrp::cpu {
namespace {

ALRP_LOOP void count_tile(const double* columns, int64_t m, const double* rows, Step h, double* sums) {
  double acc[kRowTile] = {};
  for (int64_t j = 0; j < m; ++j)
    for (int i = 0; i < kRowTile; ++i) acc[i] += step(h, columns[j], rows[i]);
  for (int i = 0; i < kRowTile; ++i) sums[i] += acc[i];
}

ALRP_LOOP void sum_tile(const double* columns, const double* weights, int64_t m, const double* rows, Step h,
                        double* sums) {
  double acc[kRowTile] = {};
  for (int64_t j = 0; j < m; ++j)
    for (int i = 0; i < kRowTile; ++i) acc[i] += weighted(step(h, columns[j], rows[i]), weights[j]);
  for (int i = 0; i < kRowTile; ++i) sums[i] += acc[i];
}

ALRP_LOOP void sum_run(const double* columns, int64_t m, const double* rows, const double* weights, int64_t r,
                       Step h, double* sums) {
  constexpr int kUnroll = 4;  // rows a turn: a load and a store of the sum serve four pairs
  int64_t i = 0;
  for (; i + kUnroll <= r; i += kUnroll)
    for (int64_t j = 0; j < m; ++j) {
      double add = 0;
      for (int u = 0; u < kUnroll; ++u) add += weighted(step(h, columns[j], rows[i + u]), weights[i + u]);
      sums[j] += add;
    }
  for (; i < r; ++i)
    for (int64_t j = 0; j < m; ++j) sums[j] += weighted(step(h, columns[j], rows[i]), weights[i]);
}

}  // namespace

void count_rows(const double* columns, int64_t m, const double* rows, Step h, double skew, double* sums) {
  if (skew == 1) return by_level<count_tile>(columns, m, rows, h, sums);
  for (int64_t j = 0; j < m; ++j)
    for (int i = 0; i < kRowTile; ++i) sums[i] += skewed(step(h, columns[j], rows[i]), skew);
}

void sum_rows(const double* columns, const double* weights, int64_t m, const double* rows, Step h,
              double* sums) {
  by_level<sum_tile>(columns, weights, m, rows, h, sums);
}

void sum_columns(const double* columns, int64_t m, const double* rows, const double* weights, int64_t r,
                 Step h, double skew, double* sums) {
  if (skew == 1) return by_level<sum_run>(columns, m, rows, weights, r, h, sums);
  for (int64_t i = 0; i < r; ++i)
    for (int64_t j = 0; j < m; ++j)
      sums[j] += weighted(skewed(step(h, columns[j], rows[i]), skew), weights[i]);
}

}  // namespace alrp::cpu

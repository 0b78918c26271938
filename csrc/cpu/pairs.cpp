#include "pairs.h"

namespace alrp::cpu {

void count_rows(const double* columns, int64_t m, const double* rows, Step h, double skew, double* sums) {
  if (skew == 1) return loops().count_rows(columns, m, rows, h, sums);
  for (int64_t j = 0; j < m; ++j)
    for (int i = 0; i < kRowTile; ++i) sums[i] += skewed(step(h, columns[j], rows[i]), skew);
}

void sum_rows(const double* columns, const double* weights, int64_t m, const double* rows, Step h,
              double* sums) {
  loops().sum_rows(columns, weights, m, rows, h, sums);
}

void sum_columns(const double* columns, int64_t m, const double* rows, const double* weights, int64_t r,
                 Step h, double skew, double* sums) {
  if (skew == 1) return loops().sum_columns(columns, m, rows, weights, r, h, sums);
  for (int64_t i = 0; i < r; ++i)
    for (int64_t j = 0; j < m; ++j)
      sums[j] += weighted(skewed(step(h, columns[j], rows[i]), skew), weights[i]);
}

}  // namespace alrp::cpu

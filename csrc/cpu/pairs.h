// Sums over pairs of scores, the inner loops of the tiled algorithm on the CPU.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../step.h"
#include "loops.h"
#include "parallel.h"

namespace alrp::cpu {

// Items worth a thread of their own.
inline int64_t grain(int64_t pairs_per_item) {
  constexpr int64_t kPairs = 1 << 17;
  return std::max<int64_t>(1, kPairs / std::max<int64_t>(1, pairs_per_item));
}

// f(begin, size) for each tile of p rows that are compared with p columns.
template <typename F>
void parallel_tiles(int64_t p, const F& f) {
  parallel_for(0, (p + kRowTile - 1) / kRowTile, grain(p * kRowTile), [&](int64_t from, int64_t to) {
    for (int64_t begin = from * kRowTile; begin < std::min(p, to * kRowTile); begin += kRowTile)
      f(begin, std::min<int64_t>(kRowTile, p - begin));
  });
}

// sums[i] += sum over j < m of H(columns[j] - rows[i])^skew, for kRowTile rows.
void count_rows(const double* columns, int64_t m, const double* rows, Step h, double skew, double* sums);

// sums[i] += sum over j < m of weights[j] H(columns[j] - rows[i]), for kRowTile rows.
void sum_rows(const double* columns, const double* weights, int64_t m, const double* rows, Step h,
              double* sums);

// sums[j] += sum over i < r of weights[i] H(columns[j] - rows[i])^skew, for m columns.
void sum_columns(const double* columns, int64_t m, const double* rows, const double* weights, int64_t r,
                 Step h, double skew, double* sums);

}  // namespace alrp::cpu

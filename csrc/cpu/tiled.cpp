// The two products pair by pair, O(P N), and the sums among the positives, O(P^2), on the CPU.
#include "tiled.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "array.h"
#include "blocks.h"
#include "maps.h"
#include "pairs.h"
#include "parallel.h"
#include "terms.h"

namespace alrp::cpu::tiled {
namespace {

// Parts that the negatives are summed in: a function of sizes alone, so that sums do not depend on threads.
int64_t part_count(const Input& input) {
  const int64_t limit = std::clamp<int64_t>((int64_t{1} << 18) / std::max<int64_t>(1, input.p), 8, 64);
  return std::min(limit, block_count(input.n));
}

// Rows [begin, begin + kRowTile) of p scores, filled up with NaN.
struct RowTile {
  double score[kRowTile];
  double sum[kRowTile] = {};
  int64_t size;

  RowTile(const double* scores, int64_t begin, int64_t p) : size(std::min<int64_t>(kRowTile, p - begin)) {
    std::fill(score, score + kRowTile, std::numeric_limits<double>::quiet_NaN());
    std::copy(scores + begin, scores + begin + size, score);
  }
};

// out[i] = sum over k != i of weights[k] H(score[k] - score[i]) for a tile of i.
void sum_others(const double* score, const double* weights, int64_t begin, int64_t size, int64_t p, Step h,
                double* out) {
  // k outside of this tile, then k inside but for i itself: an infinite weight of i must not reach its sum.
  RowTile rows(score, begin, p);
  const int64_t end = begin + size;
  sum_rows(score, weights, begin, rows.score, h, rows.sum);
  sum_rows(score + end, weights + end, p - end, rows.score, h, rows.sum);
  for (int64_t i = begin; i < end; ++i) {
    double sum = rows.sum[i - begin];
    for (int64_t k = begin; k < end; ++k)
      if (k != i) sum += weighted(step(h, score[k], score[i]), weights[k]);
    out[i] = sum;
  }
}

// out[i] = sum over the negatives j of H(x_ij)^skew.
void sum_negatives(const Input& input, const double* score, double skew, double* out, Status* status,
                   void* scratch) {
  const Step h = make_step(input.delta);
  const int64_t p = input.p, blocks = block_count(input.n), parts = part_count(input);
  auto* partial = static_cast<double*>(scratch);  // [parts][p]
  std::vector<char> nan(parts, 0);
  const int64_t blocks_per_part = parts ? (blocks + parts - 1) / parts : 0;
  parallel_for(0, parts, grain(blocks_per_part * kBlockLogits * p), [&](int64_t first, int64_t last) {
    Block block;
    for (int64_t part = first; part < last; ++part) {
      double* sums = partial + part * p;
      std::fill(sums, sums + p, 0.0);
      for (int64_t b = part * blocks_per_part; b < std::min(blocks, (part + 1) * blocks_per_part); ++b) {
        read_block(input, b, &block);
        for (int64_t begin = 0; begin < p; begin += kRowTile) {
          RowTile rows(score, begin, p);
          count_rows(block.negatives, block.negative_count, rows.score, h, skew, rows.sum);
          for (int64_t i = 0; i < rows.size; ++i) sums[begin + i] += rows.sum[i];
        }
      }
      nan[part] = block.nan;
    }
  });
  std::fill(out, out + p, 0.0);
  for (int64_t part = 0; part < parts; ++part) {
    for (int64_t i = 0; i < p; ++i) out[i] += partial[part * p + i];
    status->nan |= nan[part];
  }
}

}  // namespace

size_t scratch_bytes(const Input& input) {
  return static_cast<size_t>(part_count(input) * input.p) * sizeof(double);
}

void count(const Input& input, const double* score, double* n_fp, double* norm, Status* status,
           void* scratch) {
  sum_negatives(input, score, 1, n_fp, status, scratch);
  if (norm) sum_negatives(input, score, input.skew, norm, status, scratch);
}

void count_part(const Input& input, const double* score, double* part, Status* status, void* scratch) {
  count(input, score, part, input.skew == 1 ? nullptr : part + input.p, status, scratch);
  part[part_size(input) - 1] = static_cast<double>(status->nan);
}

void count_from_parts(const Input& input, const double* sum, const Sums& sums, Status* status) {
  std::copy(sum, sum + input.p, sums.n_fp);
  if (sums.norm) std::copy(sum + input.p, sum + 2 * input.p, sums.norm);
  status->nan |= sum[part_size(input) - 1] != 0;
}

void pair_sums(const Input& input, const Spec& spec, const double* score, const Sums& sums) {
  const Step h = make_step(input.delta);
  const int64_t p = input.p;
  std::vector<double> errors;  // in the tables' order
  if (sums.s) {
    errors.resize(p);
    for (int64_t r = 0; r < p; ++r) errors[r] = load(spec.loc_errors, sums.place[r]);
  }
  parallel_tiles(p, [&](int64_t begin, int64_t size) {
    RowTile rows(score, begin, p);
    count_rows(score, p, rows.score, h, 1, rows.sum);
    for (int64_t i = 0; i < size; ++i)  // without k = i
      sums.rank_pos[begin + i] = 1 + (rows.sum[i] - step(h, rows.score[i], rows.score[i]));
    if (sums.s) sum_others(score, errors.data(), begin, size, p, h, sums.s);
  });
}

void pair_product(const Input& input, const double* score, const double* weights, bool transposed,
                  double* out) {
  const Step h = make_step(input.delta);
  const int64_t p = input.p;
  // The transposed of H is H over mirrored scores, where ties of the hard step stay ties.
  std::vector<double> mirrored;
  if (transposed) {
    mirrored.resize(p);
    for (int64_t r = 0; r < p; ++r) mirrored[r] = -score[r];
    score = mirrored.data();
  }
  parallel_tiles(p, [&](int64_t begin, int64_t size) { sum_others(score, weights, begin, size, p, h, out); });
}

void error_gradient(const Input& input, const Sums& sums, const Tables& tables) {
  const Step h = make_step(input.delta);
  const int64_t p = input.p;
  const std::vector<double> weight = rank_weights(sums, p);
  std::vector<double> total(p, 0.0);
  parallel_for(0, p, grain(p), [&](int64_t first, int64_t last) {
    sum_columns(tables.score + first, last - first, tables.score, weight.data(), p, h, 1,
                total.data() + first);
  });
  for (int64_t r = 0; r < p; ++r) {
    const double self = step(h, tables.score[r], tables.score[r]);
    tables.error_gradient[sums.place[r]] = weight[r] * (1 - self) + total[r] + *tables.poison;
  }
}

void spread(const Input& input, const Tables& tables, const Gradients& gradients) {
  const Step h = make_step(input.delta);
  const double scale = load_scalar(gradients.grad_cls, gradients.incoming), poison = *tables.poison;
  parallel_for(0, block_count(input.n), grain(kBlockLogits * input.p), [&](int64_t first, int64_t last) {
    Block block;
    double sums[kBlockLogits];
    for (int64_t b = first; b < last; ++b) {
      read_block(input, b, &block);
      std::fill(sums, sums + block.negative_count, 0.0);
      sum_columns(block.negatives, block.negative_count, tables.score, tables.share, input.p, h, input.skew,
                  sums);
      write_negatives(input, block, [&](int64_t m) { return (sums[m] + poison) * scale; });
    }
  });
}

}  // namespace alrp::cpu::tiled

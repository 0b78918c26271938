// The two products pair by pair, O(P N), and the sums among the positives, O(P^2). Doubles throughout: this
// is the exact baseline, not the fast form.
#include <algorithm>

#include "launch.cuh"
#include "pairs.cuh"
#include "stages.h"

namespace alrp::cuda {
namespace tiled {
namespace {

// count sums over parts of the negatives, `size` logits each. Their number is a function of sizes alone, so
// that sums do not depend on the device.
struct Parts {
  int64_t count;
  int64_t size;
  double* sums;  // (count, p)

  Parts(const Input& input, void* scratch) : sums(static_cast<double*>(scratch)) {
    const int64_t most = std::clamp<int64_t>((int64_t{1} << 20) / std::max<int64_t>(1, input.p), 8, 512);
    count = std::clamp<int64_t>(blocks_for(input.n) / 16, 1, most);
    size = blocks_for((input.n + count - 1) / count) * kThreads;
  }
};

// The weight of a negative: H, or H^skew.
template <bool kSkewed>
__device__ __forceinline__ double weight_of(double h, double skew) {
  return kSkewed ? skewed(h, skew) : h;
}

struct alignas(16) Column {  // of H
  double score, weight;
};

// visit(score, weight(k), k) for every positive k, ascending; a NaN score past the last one. 2 kThreads
// doubles of shared memory.
template <typename Weight, typename Visit>
__device__ __forceinline__ void sweep_positives(const Positives& positives, const Weight& weight,
                                                const Visit& visit) {
  sweep<kThreads>(
      0, positives.p, Column{quiet_nan(), 0},
      [&](int64_t k) -> Column { return {positives.score[k], weight(k)}; },
      [&](const Column& other, int64_t k) { visit(other.score, other.weight, k); });
}

__device__ __forceinline__ double own_score(const Positives& positives) {
  return own_item() < positives.p ? positives.score[own_item()] : quiet_nan();
}

// count: parts.sums[part][i] = sum over the negatives j of a part of H(s_j - s_i), or of H^skew.
//   logits, labels  n; each read once per tile of kThreads positives
//   parts.sums      written everywhere
//   status          nan is raised if a negative is NaN
//   launch          grid (tiles of positives, at least 1; parts), kThreads threads, kThreads doubles of
//                   shared memory
//   order           every sum runs over j ascending: the same bits on every device
template <bool kSkewed>
__global__ void __launch_bounds__(kThreads, 4)
    count_tiled(Input input, Positives positives, Parts parts, Status* status) {
  const int64_t i = own_item(), begin = blockIdx.y * parts.size;
  const double s_i = own_score(positives);
  double sum = 0;
  const auto read = [&](int64_t j) {
    if (mark_of(input.labels, j) != Mark::kNegative) return quiet_nan();
    const double s_j = load(input, j);
    if (s_j != s_j) raise(&status->nan);
    return s_j;
  };
  sweep<kThreads>(begin, min(input.n, begin + parts.size), quiet_nan(), read, [&](double s_j, int64_t) {
    sum += weight_of<kSkewed>(step(positives.h, s_j, s_i), input.skew);
  });
  if (i < positives.p) parts.sums[blockIdx.y * positives.p + i] = sum;
}

// sums[i] = sum of parts.sums[part][i], parts ascending. launch  p threads
__global__ void sum_parts(Parts parts, int64_t p, double* sums) {
  const int64_t i = own_item();
  if (i >= p) return;
  double sum = 0;
  for (int64_t part = 0; part < parts.count; ++part) sum += parts.sums[part * p + i];
  sums[i] = sum;
}

// rank_pos[i] = 1 + sum over k != i of H(x_ik); s[i] = sum over k != i of E_k H(x_ik) unless s is null.
//   sums    place, read: position of each positive in flat order, where its error lies
//   launch  p threads, 2 kThreads doubles of shared memory
__global__ void __launch_bounds__(kThreads) sum_pairs(Positives positives, Array loc_errors, Sums sums) {
  const int64_t i = own_item();
  const double s_i = own_score(positives);
  double rank = 1, located = 0;
  const auto error = [&](int64_t k) { return sums.s ? load(loc_errors, sums.place[k]) : 0; };
  sweep_positives(positives, error, [&](double s_k, double weight, int64_t k) {
    if (k == i) return;  // not subtracted later: E_i may be infinite
    const double value = step(positives.h, s_k, s_i);
    rank += value;
    located += weighted(value, weight);
  });
  if (i >= positives.p) return;
  sums.rank_pos[i] = rank;
  if (sums.s) sums.s[i] = located;
}

// out = Hpp @ weights without the diagonal, or of its transposed; see Backend::pair_product.
//   place   position of each positive in flat order, where its weight lies and its sum goes
//   launch  p threads, 2 kThreads doubles of shared memory
template <bool kTransposed>
__global__ void __launch_bounds__(kThreads)
    multiply_pairs(Positives positives, const int64_t* place, const double* weights, double* out) {
  const int64_t i = own_item();
  const double s_i = own_score(positives);
  double sum = 0;
  const auto weight_at = [&](int64_t k) { return weights[place[k]]; };
  sweep_positives(positives, weight_at, [&](double s_k, double weight, int64_t k) {
    const double value = kTransposed ? step(positives.h, s_i, s_k) : step(positives.h, s_k, s_i);
    if (k != i) sum += weighted(value, weight);
  });
  if (i < positives.p) out[place[i]] = sum;
}

// dL_loc/dE_k = 1/P (1/rank(k) + sum over i != k of H(x_ik) / rank(i)), written at the place of k in flat
// order.
//   sums    place, rank_pos and n_fp, read
//   out     tables.error_gradient
//   launch  p threads, 2 kThreads doubles of shared memory
__global__ void __launch_bounds__(kThreads) spread_errors(Positives positives, Sums sums, Tables tables) {
  const int64_t k = own_item();
  const double s_k = own_score(positives);
  double sum = 0;
  const auto per_rank = [&](int64_t i) { return 1 / (sums.rank_pos[i] + sums.n_fp[i]); };
  sweep_positives(positives, per_rank, [&](double s_i, double weight, int64_t i) {
    sum += weighted(i == k ? 1.0 : step(positives.h, s_k, s_i), weight);
  });
  if (k < positives.p)
    tables.error_gradient[sums.place[k]] = sum / static_cast<double>(positives.p) + *tables.poison;
}

// spread: gradient[j] = grad_cls (poison + sum over i of share[i] H(s_j - score[i])) for negatives j, or with
// H^skew; 0 for the rest.
//   logits, labels  n, read once; gradient written once, everywhere
//   launch          n threads, 2 kThreads doubles of shared memory
template <bool kSkewed>
__global__ void __launch_bounds__(kThreads)
    spread_tiled(Input input, Positives positives, Tables tables, Gradients gradients) {
  const int64_t j = own_item();
  const bool negative = j < input.n && mark_of(input.labels, j) == Mark::kNegative;
  const double s_j = negative ? load(input, j) : quiet_nan();
  double sum = 0;
  const auto share = [&](int64_t i) { return tables.share[i]; };
  sweep_positives(positives, share, [&](double s_i, double weight, int64_t) {
    sum += weighted(weight_of<kSkewed>(step(positives.h, s_j, s_i), input.skew), weight);
  });
  if (j >= input.n) return;
  store_gradient(
      input, j,
      negative ? (sum + *tables.poison) * load_scalar(gradients.grad_cls, gradients.incoming) : 0.0);
}

}  // namespace

size_t scratch_bytes(const Input& input) {
  return static_cast<size_t>(Parts(input, nullptr).count * input.p) * sizeof(double);
}

void count(const Input& input, const Tables& tables, double* n_fp, double* norm, Status* status,
           void* scratch, cudaStream_t stream) {
  const Parts parts(input, scratch);
  const Shape each = per_item(input.p);
  const Shape tiles{dim3(std::max(1u, each.blocks.x), static_cast<unsigned>(parts.count)), kThreads};
  const auto run = [&](auto* kernel, double* sums) {
    launch("count_tiled", kernel, tiles, stream, input, Positives(input, tables), parts, status);
    launch("sum_parts", sum_parts, each, stream, parts, input.p, sums);
  };
  run(count_tiled<false>, n_fp);
  if (norm) run(count_tiled<true>, norm);
}

void pair_sums(const Input& input, const Spec& spec, const Tables& tables, const Sums& sums,
               cudaStream_t stream) {
  launch("sum_pairs", sum_pairs, per_item(input.p), stream, Positives(input, tables), spec.loc_errors, sums);
}

void error_gradient(const Input& input, const Sums& sums, const Tables& tables, cudaStream_t stream) {
  launch("spread_errors", spread_errors, per_item(input.p), stream, Positives(input, tables), sums, tables);
}

void spread(const Input& input, const Tables& tables, const Gradients& gradients, cudaStream_t stream) {
  launch("spread_tiled", input.skew == 1 ? spread_tiled<false> : spread_tiled<true>, per_item(input.n),
         stream, input, Positives(input, tables), tables, gradients);
}

}  // namespace tiled

void pair_product(const Input& input, const Tables& tables, const int64_t* place, const double* weights,
                  bool transposed, double* out, cudaStream_t stream) {
  launch("multiply_pairs", transposed ? tiled::multiply_pairs<true> : tiled::multiply_pairs<false>,
         per_item(input.p), stream, Positives(input, tables), place, weights, out);
}

}  // namespace alrp::cuda

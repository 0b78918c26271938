// The sort errors of Rank & Sort, pair by pair of the positives, O(p^2). Doubles throughout.
#include "../losses.h"
#include "block.cuh"
#include "launch.cuh"
#include "pairs.cuh"
#include "stages.h"

namespace alrp::cuda {
namespace {

constexpr int kSortThreads = 512;
constexpr int kRows = kSortThreads / 32;  // positives of a block: each has a warp

// The positive of a warp, and the first of its block.
__device__ __forceinline__ int64_t first_row() { return int64_t{blockIdx.x} * kRows; }
__device__ __forceinline__ int64_t own_row() { return first_row() + threadIdx.x / 32; }

struct alignas(16) Labelled {
  double score, label;
};

struct Sharing {
  double score, label, share;
};

// errors.label[r] = the label of the r-th positive; 0 where it was not found, and every result is NaN.
//   launch  p threads
__global__ void gather_labels(Array labels, SortErrors errors, int64_t p) {
  const int64_t r = own_item();
  if (r < p) errors.label[r] = errors.label_at[r] >= 0 ? load(labels, errors.label_at[r]) : 0.0;
}

// errors.error and .share of every positive i, from its sums over the positives k; what i itself gets of its
// error, in `gradient` unless that is null: without poison, which tables.gradient brings when
// scatter_gradients adds the two.
//   errors.label   p, read
//   launch         a block of kSortThreads threads for kRows positives, 2 kSortThreads doubles of shared
//                  memory
//   exact          every sum in a fixed order: the same bits on every device
__global__ void __launch_bounds__(kSortThreads)
    sum_sort_errors(Positives positives, SortErrors errors, double eps, double* gradient) {
  const auto& [score, p, h] = positives;
  const int64_t i = own_row();
  const double s_i = i < p ? score[i] : quiet_nan(), y_i = i < p ? errors.label[i] : 0.0;
  int64_t begin = 0;  // tiles below the ramp of the block's lowest i add nothing
  while (step(h, score[min(begin + kSortThreads, p) - 1], score[first_row()]) == 0) begin += kSortThreads;
  SortSums sums{0, 0, 0, 0};
  sweep<kSortThreads, 32>(
      begin, p, Labelled{quiet_nan(), 0}, [&](int64_t k) -> Labelled { return {score[k], errors.label[k]}; },
      [&](const Labelled& k, int64_t) { add_pair(step(h, k.score, s_i), k.label - y_i, sums); });
  sums = {warp_sum(sums.above), warp_sum(sums.below), warp_sum(sums.above_distance),
          warp_sum(sums.below_distance)};
  if (threadIdx.x % 32 != 0 || i >= p) return;
  const double error = sort_error(sums), z = static_cast<double>(p);
  errors.error[i] = error;
  errors.share[i] = share(error, sums.below, eps, z);
  if (gradient) gradient[i] = positive_gradient(error, sums.below, eps, z);
}

// tables.error_gradient[k] += what the positives i of a higher label send it, sum over i of share[i] H(x_ik),
// unless it is null; output.loc, the mean error.
//   errors   p, after sum_sort_errors
//   launch   a block of kSortThreads threads for kRows positives, or one block where the gradient is null; 3
//            kSortThreads doubles of shared memory
//   exact    every sum in a fixed order: the same bits on every device
__global__ void __launch_bounds__(kSortThreads)
    spread_sort_errors(Positives positives, SortErrors errors, Output output) {
  const auto& [score, p, h] = positives;
  if (blockIdx.x == 0) {
    double own = 0;
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < p; i += kSortThreads) own += errors.error[i];
    const double sum = block_sum(own);
    if (threadIdx.x == 0)
      store({output.loc, output.values}, 0, sum / static_cast<double>(p) + *output.tables.poison);
  }
  if (!output.tables.error_gradient) return;
  const int64_t k = own_row();
  const double s_k = k < p ? score[k] : quiet_nan(), y_k = k < p ? errors.label[k] : 0.0;
  const double highest = score[min(first_row() + kRows, p) - 1];
  int64_t end = kSortThreads;  // the later tiles have no part in the ramp of the block's highest k
  while (end < p && step(h, highest, score[end]) > 0) end += kSortThreads;
  double sum = 0;
  sweep<kSortThreads, 32>(
      0, min(end, p), Sharing{quiet_nan(), 0, 0},
      [&](int64_t i) -> Sharing { return {score[i], errors.label[i], errors.share[i]}; },
      [&](const Sharing& i, int64_t) { sum += i.label > y_k ? i.share * step(h, s_k, i.score) : 0.0; });
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0 && k < p) output.tables.error_gradient[k] += sum;
}

}  // namespace

void compute_sort_errors(const Input& input, const Spec& spec, const SortErrors& errors, const Output& output,
                         cudaStream_t stream) {
  if (input.p == 0) return;
  const Positives positives(input, output.tables);
  double* gradient = output.tables.error_gradient;
  launch("gather_labels", gather_labels, per_item(input.p), stream, spec.labels, errors, input.p);
  const Shape rows = per_item(input.p, kSortThreads, kRows);
  launch("sum_sort_errors", sum_sort_errors, rows, stream, positives, errors, spec.eps, gradient);
  launch("spread_sort_errors", spread_sort_errors, gradient ? rows : Shape{1, kSortThreads}, stream,
         positives, errors, output);
}

}  // namespace alrp::cuda

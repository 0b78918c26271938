// The sort errors of Rank & Sort, pair by pair of the positives, O(P^2). Doubles throughout.
#include <algorithm>

#include "../losses.h"
#include "array.cuh"
#include "block.cuh"
#include "launch.h"
#include "stages.h"

namespace alrp::cuda {
namespace {

constexpr int kRows = kBlock / 32;  // positives of a block: each has a warp

// The sum over a warp, in a fixed order, in every lane.
__device__ __forceinline__ double warp_sum(double value) {
#pragma unroll
  for (int distance = 16; distance; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

// label[r] = the label of the r-th positive; 0 for what was not found, where every result is NaN. launch  p threads
__global__ void gather_labels(Array labels, const int64_t* at, int64_t p, double* label) {
  const int64_t r = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (r < p) label[r] = at[r] >= 0 ? load(labels, at[r]) : 0.0;
}

// errors.error and .share of every positive i, from its sums over the positives k; what i itself gets of its error, in
// gradient unless that is null: it needs no poison, for scatter adds it to tables.gradient.
//   score, errors.label   p; scores ascend, so that tiles of k below the ramp of the block's lowest i are passed over
//   launch                kRows positives a block, kBlock threads, 2 kBlock doubles of shared memory
//   exact                 every sum in a fixed order: the same bits on every device
__global__ void __launch_bounds__(kBlock)
    sum_sort_errors(const double* score, SortErrors errors, int64_t p, Step h, double eps, double* gradient) {
  __shared__ double column[kBlock], label[kBlock];
  const int lane = threadIdx.x & 31;
  const int64_t first = int64_t{blockIdx.x} * kRows, i = first + threadIdx.x / 32;
  const double lowest = score[first], s_i = i < p ? score[i] : quiet_nan(),
               y_i = i < p ? errors.label[i] : 0.0;
  SortSums sums{0, 0, 0, 0};
#pragma unroll 1
  for (int64_t base = 0; base < p; base += kBlock) {
    if (step(h, score[min(base + kBlock, p) - 1], lowest) == 0) continue;  // the same for every thread
    const int64_t k = base + threadIdx.x;
    column[threadIdx.x] = k < p ? score[k] : quiet_nan();  // adds nothing
    label[threadIdx.x] = k < p ? errors.label[k] : 0.0;
    __syncthreads();
#pragma unroll 4
    for (int t = lane; t < kBlock; t += 32) add_pair(step(h, column[t], s_i), label[t] - y_i, sums);
    __syncthreads();  // before the next tile overwrites what is being read
  }
  sums = {warp_sum(sums.above), warp_sum(sums.below), warp_sum(sums.above_distance),
          warp_sum(sums.below_distance)};
  if (lane != 0 || i >= p) return;
  const double error = sort_error(sums), z = static_cast<double>(p);
  errors.error[i] = error;
  errors.share[i] = share(error, sums.below, eps, z);
  if (gradient) gradient[i] = positive_gradient(error, sums.below, eps, z);
}

// gradient[k] += what the positives i of a higher label send it, sum over i of share[i] H(x_ik), unless it is null;
// the loss, the mean error.
//   score, errors   p, of sum_sort_errors; scores ascend, so that the block's highest k tells the last tile of i
//   launch          kRows positives a block, or one block where gradient is null; kBlock threads, 3 kBlock doubles of
//                   shared memory
//   exact           as sum_sort_errors
__global__ void __launch_bounds__(kBlock)
    spread_sort_errors(const double* score, SortErrors errors, int64_t p, Step h, const double* poison,
                       double* gradient, Array loss) {
  __shared__ double row[kBlock], label[kBlock], weight[kBlock];
  if (blockIdx.x == 0) {
    double own = 0, sum = 0;
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < p; i += kBlock) own += errors.error[i];
    carried_scan(own, sum, Plus());
    if (threadIdx.x == 0) store(loss, 0, sum / static_cast<double>(p) + *poison);
  }
  if (!gradient) return;
  const int lane = threadIdx.x & 31;
  const int64_t first = int64_t{blockIdx.x} * kRows, k = first + threadIdx.x / 32;
  const double highest = score[min(first + kRows, p) - 1], s_k = k < p ? score[k] : quiet_nan(),
               y_k = k < p ? errors.label[k] : 0.0;
  double sum = 0;
#pragma unroll 1
  for (int64_t base = 0; base < p && step(h, highest, score[base]) > 0; base += kBlock) {
    const int64_t i = base + threadIdx.x;
    row[threadIdx.x] = i < p ? score[i] : quiet_nan();
    label[threadIdx.x] = i < p ? errors.label[i] : 0.0;
    weight[threadIdx.x] = i < p ? errors.share[i] : 0.0;
    __syncthreads();
#pragma unroll 4
    for (int t = lane; t < kBlock; t += 32) sum += label[t] > y_k ? weight[t] * step(h, s_k, row[t]) : 0.0;
    __syncthreads();
  }
  sum = warp_sum(sum);
  if (lane == 0 && k < p) gradient[k] += sum;
}

}  // namespace

void compute_sort_errors(const Input& input, const Spec& spec, const SortErrors& errors, const Output& output,
                         cudaStream_t stream) {
  if (input.p == 0) return;
  const Step h = make_step(input.delta);
  const int64_t p = input.p;
  const Tables& tables = output.tables;
  gather_labels<<<grid_for(p), kThreads, 0, stream>>>(spec.labels, errors.label_at, p, errors.label);
  check_launch("gather_labels");
  const unsigned blocks = grid_for((p + kRows - 1) / kRows * kThreads);
  sum_sort_errors<<<blocks, kBlock, 0, stream>>>(tables.score, errors, p, h, spec.eps, tables.error_gradient);
  check_launch("sum_sort_errors");
  spread_sort_errors<<<tables.error_gradient ? blocks : 1, kBlock, 0, stream>>>(
      tables.score, errors, p, h, tables.poison, tables.error_gradient, {output.loc, output.values});
  check_launch("spread_sort_errors");
}

}  // namespace alrp::cuda

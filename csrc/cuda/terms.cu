// What is P-sized: losses, errors and shares from the sums, and the positives' gradients.
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

#include "../losses.h"
#include "array.cuh"
#include "backend.h"
#include "launch.h"

namespace alrp::cuda {
namespace {

struct Max {
  __device__ double operator()(double a, double b) const { return a > b ? a : b; }
};

// A running prefix over chunks of kThreads values, carried from chunk to chunk in every thread.
template <typename Operation>
__device__ double carried_scan(double value, double& carry, Operation operation) {
  using Scan = cub::BlockScan<double, kThreads>;
  __shared__ typename Scan::TempStorage storage;
  double prefix, total;
  Scan(storage).InclusiveScan(value, prefix, operation, total);
  __syncthreads();  // storage is used again
  prefix = operation(carry, prefix);
  carry = operation(carry, total);
  return prefix;
}

struct Plus {
  __device__ double operator()(double a, double b) const { return a + b; }
};

__device__ double block_sum(double value) {
  using Reduce = cub::BlockReduce<double, kThreads>;
  __shared__ typename Reduce::TempStorage storage;
  const double sum = Reduce(storage).Sum(value);
  __syncthreads();
  return sum;  // in thread 0
}

// Sum of errors in the hard order: located[r] = sum of E over the positives at r and above, from the top
// down.
__device__ void hard_sums(const Array& loc_errors, const int64_t* place, int64_t p, double* located) {
  double carry = 0;
  for (int64_t base = 0; base < p; base += kThreads) {
    const int64_t r = p - 1 - (base + threadIdx.x);
    const double sum = carried_scan(r >= 0 ? load(loc_errors, place[r]) : 0.0, carry, Plus());
    if (r >= 0) located[r] = sum;
  }
  __syncthreads();
}

// terms: losses, rank, precision, and the tables that backward reads.
//   sums     p: place, rank_pos, n_fp, s (aLRP)
//   output   all of Output but index and score; error_gradient only for the hard order
//   launch   one block of kThreads threads; O(p) work
//   exact    sums and scans in a fixed order: the same bits on every device
__global__ void __launch_bounds__(kThreads) terms_kernel(Spec spec, Sums sums, Output output, int64_t p) {
  const Tables tables = output.tables;
  const Status status = *output.status;
  const double z = static_cast<double>(p > 0 ? p : 1);
  const double poison = status.nan || status.invalid || status.found != p ? quiet_nan() : 0.0;
  const bool hard = spec.loss == Loss::kALRPHard;
  if (hard)
    hard_sums(spec.loc_errors, sums.place, p, tables.gradient);  // each is read before its place is written
  double cls = 0, loc = 0, best_precision = 0, weights = 0;
  for (int64_t base = 0; base < p; base += kThreads) {  // ascending by score
    const int64_t r = base + threadIdx.x;
    const bool live = r < p;
    const double n_fp = live ? sums.n_fp[r] : 0, rank_pos = live ? sums.rank_pos[r] : 1,
                 rank = rank_pos + n_fp;
    const double precision = rank_pos / rank;
    const int64_t place = live ? sums.place[r] : 0;
    Terms terms{0, 0, 0};
    switch (spec.loss) {  // the same branch for every thread: the scans hold barriers
      case Loss::kALRP:
        if (live) terms = alrp_terms(n_fp, rank, sums.s[r], load(spec.loc_errors, place) + sums.s[r]);
        break;
      case Loss::kALRPHard: {
        // dL_loc/dE_k of the hard order: over the positives at or below k
        const double below = carried_scan(live ? 1 / rank : 0.0, weights, Plus());
        if (live) terms = alrp_terms(n_fp, rank, sums.s[r], tables.gradient[r]);
        if (live && tables.error_gradient) tables.error_gradient[place] = below / z + poison;
        break;
      }
      case Loss::kAP:
        if (live) terms = ap_terms(n_fp, rank);
        break;
      case Loss::kAPInterpolated: {
        const double best = carried_scan(live ? precision : 0.0, best_precision, Max());
        if (live) terms = interpolated_ap_terms(best);
        break;
      }
    }
    if (!live) continue;
    cls += terms.cls;
    loc += terms.loc;
    tables.share[r] = share(terms.error, n_fp, spec.eps, z);
    tables.gradient[r] = positive_gradient(terms.error, n_fp, spec.eps, z) + poison;
    store({output.rank, output.values}, place, rank + poison);
    store({output.precision, output.values}, place, precision + poison);
  }
  cls = block_sum(cls);
  loc = block_sum(loc);
  if (threadIdx.x == 0) {
    *tables.poison = poison;
    store({output.cls, output.values}, 0, cls / z + poison);
    store({output.loc, output.values}, 0, loc / z + poison);
  }
}

// Gradients of the positives' scores (over the zeros that spread left) and of loc_errors. launch  p threads
__global__ void scatter_gradients(Tables tables, Gradients gradients, int64_t p) {
  const int64_t r = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (r >= p) return;
  if (gradients.logits.data && tables.index[r] >= 0)
    store(gradients.logits, tables.index[r],
          tables.gradient[r] * load_scalar(gradients.grad_cls, gradients.incoming));
  if (gradients.loc_errors.data)
    store(gradients.loc_errors, r,
          tables.error_gradient[r] * load_scalar(gradients.grad_loc, gradients.incoming));
}

}  // namespace

void CudaBackend::terms(const Input& input, const Spec& spec, const Sums& sums, const Output& output) {
  terms_kernel<<<1, kThreads, 0, stream_>>>(spec, sums, output, input.p);
  check_launch("terms_kernel");
}

void CudaBackend::scatter(const Input& input, const Tables& tables, const Gradients& gradients) {
  if (input.p == 0) return;
  scatter_gradients<<<grid_for(input.p), kThreads, 0, stream_>>>(tables, gradients, input.p);
  check_launch("scatter_gradients");
}

}  // namespace alrp::cuda

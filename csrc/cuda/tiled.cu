// The two products pair by pair, O(P N), and the sums among the positives, O(P^2). Doubles throughout: this
// is the exact baseline, not the fast form.
#include <algorithm>

#include "array.cuh"
#include "launch.h"
#include "stages.h"

namespace alrp::cuda {
namespace tiled {
namespace {

// Sums over parts must not depend on the device: the number of parts is a function of sizes alone.
int64_t part_count(const Input& input) {
  const int64_t most = std::clamp<int64_t>((int64_t{1} << 20) / std::max<int64_t>(1, input.p), 8, 512);
  return std::clamp<int64_t>(blocks_for(input.n) / 16, 1, most);
}

// The weight of a negative: H, or H^skew.
template <bool kSkewed>
__device__ __forceinline__ double weight_of(double h, double skew) {
  return kSkewed ? skewed(h, skew) : h;
}

// count: partial[part][i] = sum over the negatives j of a part of H(s_j - s_i), or of H^skew.
//   logits, labels  n; each read once per tile of kThreads positives
//   score           p, the positives
//   partial         parts x p, written everywhere
//   status          nan is raised if a negative is NaN
//   launch          grid (tiles of positives, at least 1; parts), kThreads threads, kThreads doubles of
//                   shared memory
//   order           every sum runs over j ascending: the same bits on every device
template <bool kSkewed>
__global__ void __launch_bounds__(kThreads)
    count_tiled(Array logits, Labels labels, int64_t n, const double* score, int64_t p, Step h, double skew,
                int64_t part_size, double* partial, Status* status) {
  __shared__ double column[kThreads];
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const double s_i = i < p ? score[i] : quiet_nan();
  const int64_t begin = blockIdx.y * part_size;
  const int64_t end = min(n, begin + part_size);
  double sum = 0;
  for (int64_t base = begin; base < end; base += kThreads) {
    const int64_t j = base + threadIdx.x;
    double s_j = quiet_nan();  // adds nothing
    if (j < end && mark_of(labels, j) == Mark::kNegative) {
      s_j = load(logits, j);
      if (s_j != s_j) raise(&status->nan);
    }
    column[threadIdx.x] = s_j;
    __syncthreads();
#pragma unroll 8
    for (int k = 0; k < kThreads; ++k) sum += weight_of<kSkewed>(step(h, column[k], s_i), skew);
    __syncthreads();  // before the next tile overwrites what is being read
  }
  if (i < p) partial[blockIdx.y * p + i] = sum;
}

// n_fp[i] = sum of partial[part][i], parts ascending. launch  p threads
__global__ void sum_parts(const double* partial, int64_t parts, int64_t p, double* n_fp) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= p) return;
  double sum = 0;
  for (int64_t part = 0; part < parts; ++part) sum += partial[part * p + i];
  n_fp[i] = sum;
}

// rank_pos[i] = 1 + sum over k != i of H(x_ik); s[i] = sum over k != i of E_k H(x_ik) unless s is null.
//   score   p, ascending; place: position of each in flat order, where its error lies
//   launch  tiles of kThreads positives, 2 kThreads doubles of shared memory
__global__ void __launch_bounds__(kThreads)
    sum_pairs(const double* score, const int64_t* place, Array loc_errors, int64_t p, Step h,
              double* rank_pos, double* s) {
  __shared__ double column[kThreads], error[kThreads];
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const double s_i = i < p ? score[i] : quiet_nan();
  double rank = 1, located = 0;
  for (int64_t base = 0; base < p; base += kThreads) {
    const int64_t k = base + threadIdx.x;
    column[threadIdx.x] = k < p ? score[k] : quiet_nan();
    error[threadIdx.x] = s && k < p ? load(loc_errors, place[k]) : 0;
    __syncthreads();
    for (int t = 0; t < kThreads; ++t) {
      if (base + t == i) continue;  // not subtracted later: E_i may be infinite
      const double value = step(h, column[t], s_i);
      rank += value;
      located += weighted(value, error[t]);
    }
    __syncthreads();
  }
  if (i >= p) return;
  rank_pos[i] = rank;
  if (s) s[i] = located;
}

// out = Hpp @ weights without the diagonal, or of its transposed; see Backend::pair_product.
//   score    p; place: position of each in flat order, where its weight lies and its sum goes
//   sign     1, or -1: H(-x) is the transposed of H(x)
//   launch   tiles of kThreads positives, 2 kThreads doubles of shared memory
__global__ void __launch_bounds__(kThreads)
    pair_product_kernel(const double* score, const int64_t* place, const double* weights, int64_t p, Step h,
                        double sign, double* out) {
  __shared__ double column[kThreads], weight[kThreads];
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const double s_i = i < p ? sign * score[i] : quiet_nan();
  double sum = 0;
  for (int64_t base = 0; base < p; base += kThreads) {
    const int64_t k = base + threadIdx.x;
    column[threadIdx.x] = k < p ? sign * score[k] : quiet_nan();
    weight[threadIdx.x] = k < p ? weights[place[k]] : 0;
    __syncthreads();
    for (int t = 0; t < kThreads; ++t)
      if (base + t != i) sum += weighted(step(h, column[t], s_i), weight[t]);
    __syncthreads();
  }
  if (i < p) out[place[i]] = sum;
}

// dL_loc/dE_k = 1/P (1/rank(k) + sum over i != k of H(x_ik) / rank(i)), written at the place of k in flat
// order.
//   launch  tiles of kThreads positives, 2 kThreads doubles of shared memory
__global__ void __launch_bounds__(kThreads)
    spread_errors(const double* score, const int64_t* place, const double* rank_pos, const double* n_fp,
                  int64_t p, Step h, const double* poison, double* error_gradient) {
  __shared__ double row[kThreads], weight[kThreads];
  const int64_t k = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const double s_k = k < p ? score[k] : quiet_nan();
  double sum = 0;
  for (int64_t base = 0; base < p; base += kThreads) {
    const int64_t i = base + threadIdx.x;
    row[threadIdx.x] = i < p ? score[i] : quiet_nan();
    weight[threadIdx.x] = i < p ? 1 / (rank_pos[i] + n_fp[i]) : 0;
    __syncthreads();
    for (int t = 0; t < kThreads; ++t) sum += weighted(base + t == k ? 1.0 : step(h, s_k, row[t]), weight[t]);
    __syncthreads();
  }
  if (k < p) error_gradient[place[k]] = sum / static_cast<double>(p) + *poison;
}

// spread: gradient[j] = grad_cls (poison + sum over i of share[i] H(s_j - score[i])) for negatives j, or with
// H^skew; 0 for the rest.
//   logits, labels  n, read once; gradient written once, everywhere
//   launch          tiles of kThreads logits, 2 kThreads doubles of shared memory
template <bool kSkewed>
__global__ void __launch_bounds__(kThreads)
    spread_tiled(Array logits, Labels labels, int64_t n, const double* score, const double* share, int64_t p,
                 Step h, double skew, const double* poison, const void* grad_cls, Dtype incoming,
                 Array gradient) {
  __shared__ double row[kThreads], weight[kThreads];
  const int64_t j = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const bool negative = j < n && mark_of(labels, j) == Mark::kNegative;
  const double s_j = negative ? load(logits, j) : quiet_nan();
  double sum = 0;
  for (int64_t base = 0; base < p; base += kThreads) {
    const int64_t i = base + threadIdx.x;
    row[threadIdx.x] = i < p ? score[i] : quiet_nan();
    weight[threadIdx.x] = i < p ? share[i] : 0;
    __syncthreads();
#pragma unroll 8
    for (int t = 0; t < kThreads; ++t)
      sum += weighted(weight_of<kSkewed>(step(h, s_j, row[t]), skew), weight[t]);
    __syncthreads();
  }
  if (j < n) store(gradient, j, negative ? (sum + *poison) * load_scalar(grad_cls, incoming) : 0.0);
}

}  // namespace

size_t scratch_bytes(const Input& input) {
  return static_cast<size_t>(part_count(input) * input.p) * sizeof(double);
}

void count(const Input& input, const Tables& tables, double skew, double* sums, Status* status, void* scratch,
           cudaStream_t stream) {
  const int64_t p = input.p, parts = part_count(input);
  auto* partial = static_cast<double*>(scratch);
  const int64_t part_size = blocks_for((input.n + parts - 1) / parts) * kThreads;
  const dim3 grid(std::max(1u, grid_for(p)), static_cast<unsigned>(parts));
  auto* kernel = skew == 1 ? &count_tiled<false> : &count_tiled<true>;
  kernel<<<grid, kThreads, 0, stream>>>(input.logits, input.labels, input.n, tables.score, p,
                                        make_step(input.delta), skew, part_size, partial, status);
  check_launch("count_tiled");
  if (p == 0) return;
  sum_parts<<<grid_for(p), kThreads, 0, stream>>>(partial, parts, p, sums);
  check_launch("sum_parts");
}

void pair_sums(const Input& input, const Spec& spec, const Tables& tables, const Sums& sums,
               cudaStream_t stream) {
  if (input.p == 0) return;
  sum_pairs<<<grid_for(input.p), kThreads, 0, stream>>>(tables.score, sums.place, spec.loc_errors, input.p,
                                                        make_step(input.delta), sums.rank_pos, sums.s);
  check_launch("sum_pairs");
}

void error_gradient(const Input& input, const Sums& sums, const Tables& tables, cudaStream_t stream) {
  if (input.p == 0) return;
  spread_errors<<<grid_for(input.p), kThreads, 0, stream>>>(tables.score, sums.place, sums.rank_pos,
                                                            sums.n_fp, input.p, make_step(input.delta),
                                                            tables.poison, tables.error_gradient);
  check_launch("spread_errors");
}

void spread(const Input& input, const Tables& tables, const Gradients& gradients, cudaStream_t stream) {
  auto* kernel = input.skew == 1 ? &spread_tiled<false> : &spread_tiled<true>;
  kernel<<<grid_for(input.n), kThreads, 0, stream>>>(
      input.logits, input.labels, input.n, tables.score, tables.share, input.p, make_step(input.delta),
      input.skew, tables.poison, gradients.grad_cls, gradients.incoming, gradients.logits);
  check_launch("spread_tiled");
}

}  // namespace tiled

void pair_product(const Input& input, const Tables& tables, const int64_t* place, const double* weights,
                  bool transposed, double* out, cudaStream_t stream) {
  if (input.p == 0) return;
  tiled::pair_product_kernel<<<grid_for(input.p), kThreads, 0, stream>>>(
      tables.score, place, weights, input.p, make_step(input.delta), transposed ? -1.0 : 1.0, out);
  check_launch("pair_product_kernel");
}

}  // namespace alrp::cuda

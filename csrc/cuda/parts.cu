// The two halves of count, for negatives that lie with several processes: what goes out to be added up, and what comes
// back.
#include "array.cuh"
#include "launch.h"
#include "sorted.cuh"
#include "stages.h"

namespace alrp::cuda {
namespace {

template <typename Sum>
__device__ void pack_bin(const SortedTables& t, int64_t m, int64_t* words) {
  to_words(static_cast<const Bin<Sum>*>(t.bins)[m], words + kBinWords * m);
}

template <typename Sum>
__device__ void unpack_bin(const SortedTables& t, int64_t m, const int64_t* words) {
  static_cast<Bin<Sum>*>(t.bins)[m] = from_words<Sum>(words + kBinWords * m);
}

// words: the bins that count left, and status.nan; 0 where the call is poisoned, and there are no bins.
//   words   part_size(), written everywhere
//   launch  2p + 1 threads
__global__ void pack_bins(SortedTables t, const Status* status, int64_t* words) {
  const int64_t m = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, bins = 2 * t.p + 1;
  if (m == 0) words[kBinWords * bins] = status->nan;
  if (m >= bins) return;
  if (t.plan->form == Form::kNarrow)
    pack_bin<Narrow::Sum>(t, m, words);
  else if (t.plan->form == Form::kWide)
    pack_bin<Wide::Sum>(t, m, words);
  else
    for (int k = 0; k < kBinWords; ++k) words[kBinWords * m + k] = 0;
}

// The bins of all processes from their words' sums, and status.nan.
//   t       as pack_bins found it, but for the bins
//   launch  2p + 1 threads
__global__ void unpack_bins(SortedTables t, const int64_t* words, Status* status) {
  const int64_t m = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, bins = 2 * t.p + 1;
  if (m == 0 && words[kBinWords * bins] != 0) raise(&status->nan);
  if (m >= bins) return;
  if (t.plan->form == Form::kNarrow)
    unpack_bin<Narrow::Sum>(t, m, words);
  else if (t.plan->form == Form::kWide)
    unpack_bin<Wide::Sum>(t, m, words);
}

// Of the tiled form: status.nan beside the sums. launch  1 thread
__global__ void pack_nan(const Status* status, double* nan) { *nan = static_cast<double>(status->nan); }

// n_fp and norm (unless it is null) from the sums of all processes, and status.nan.
//   parts   part_size()
//   launch  at least max(1, p) threads
__global__ void unpack_sums(const double* parts, const double* nan, Sums sums, int64_t p, Status* status) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i == 0 && *nan != 0) raise(&status->nan);
  if (i >= p) return;
  sums.n_fp[i] = parts[i];
  if (sums.norm) sums.norm[i] = parts[p + i];
}

}  // namespace

void sorted::pack(const Input& input, const Tables& tables, const Status* status, int64_t* words,
                  cudaStream_t stream) {
  pack_bins<<<grid_for(2 * input.p + 1), kThreads, 0, stream>>>(SortedTables(input, tables.device), status,
                                                                words);
  check_launch("pack_bins");
}

void sorted::unpack(const Input& input, const Tables& tables, const int64_t* words, Status* status,
                    cudaStream_t stream) {
  unpack_bins<<<grid_for(2 * input.p + 1), kThreads, 0, stream>>>(SortedTables(input, tables.device), words,
                                                                  status);
  check_launch("unpack_bins");
}

void tiled::pack(const Input& input, const Status* status, double* sums, cudaStream_t stream) {
  pack_nan<<<1, 1, 0, stream>>>(status, sums + part_size(input) - 1);
  check_launch("pack_nan");
}

void tiled::unpack(const Input& input, const double* parts, const Sums& sums, Status* status,
                   cudaStream_t stream) {
  unpack_sums<<<grid_for(input.p + 1), kThreads, 0, stream>>>(parts, parts + part_size(input) - 1, sums,
                                                              input.p, status);
  check_launch("unpack_sums");
}

}  // namespace alrp::cuda

// The two halves of count, for negatives that lie with several processes: what goes out to be added up, and what comes
// back.
#include "array.cuh"
#include "backend.h"
#include "launch.h"
#include "sorted.cuh"

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

// n_fp from the sums of all processes, and status.nan. launch  at least max(1, p) threads
__global__ void unpack_sums(const double* sums, const double* nan, int64_t p, double* n_fp, Status* status) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i == 0 && *nan != 0) raise(&status->nan);
  if (i < p) n_fp[i] = sums[i];
}

}  // namespace

void CudaBackend::count_part(const Input& input, const Tables& tables, void* part, Status* status,
                             void* scratch) {
  if (is_sorted_form(input)) {
    lay_out(input, tables, status);
    sorted_count(input, tables, status);
    pack_bins<<<grid_for(2 * input.p + 1), kThreads, 0, stream_>>>(SortedTables(input, tables.device), status,
                                                                   static_cast<int64_t*>(part));
    check_launch("pack_bins");
  } else {
    auto* sums = static_cast<double*>(part);
    tiled_count(input, tables, 1, sums, status, scratch);
    pack_nan<<<1, 1, 0, stream_>>>(status, sums + part_size(input) - 1);
    check_launch("pack_nan");
  }
}

void CudaBackend::count_from_parts(const Input& input, const Tables& tables, const void* sum, double* n_fp,
                                   Status* status) {
  if (is_sorted_form(input)) {
    unpack_bins<<<grid_for(2 * input.p + 1), kThreads, 0, stream_>>>(
        SortedTables(input, tables.device), static_cast<const int64_t*>(sum), status);
    check_launch("unpack_bins");
  } else {
    const auto* sums = static_cast<const double*>(sum);
    unpack_sums<<<grid_for(input.p + 1), kThreads, 0, stream_>>>(sums, sums + part_size(input) - 1, input.p,
                                                                 n_fp, status);
    check_launch("unpack_sums");
  }
}

}  // namespace alrp::cuda

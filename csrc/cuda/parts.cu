// The two halves of count, for negatives that lie with several processes: what goes out to be added up, and
// what comes back.
#include "array.cuh"
#include "launch.cuh"
#include "sorted.cuh"
#include "stages.h"

namespace alrp::cuda {
namespace {

template <typename Position>
__device__ auto& bin_of(const Position&, const SortedTables& t, int64_t m) {
  return static_cast<Bin<typename Position::Sum>*>(t.bins)[m];
}

// words: the bins that count left, and status.nan; 0 where the call is poisoned, and there are no bins.
//   words   part_size(), written everywhere
//   launch  2p + 1 threads
__global__ void pack_bins(SortedTables t, const Status* status, int64_t* words) {
  const int64_t m = own_item(), bins = 2 * t.p + 1;
  if (m == 0) words[kBinWords * bins] = status->nan;
  if (m >= bins) return;
  int64_t* own = words + kBinWords * m;
  const auto pack = [&](const auto& position) { to_words(bin_of(position, t, m), own); };
  if (!with_positions(*t.plan, 0, pack)) to_words(Bin<Narrow::Sum>{0, 0}, own);
}

// The bins of all processes from their words' sums, and status.nan.
//   t       as pack_bins found it, but for the bins
//   launch  2p + 1 threads
__global__ void unpack_bins(SortedTables t, const int64_t* words, Status* status) {
  const int64_t m = own_item(), bins = 2 * t.p + 1;
  if (m == 0 && words[kBinWords * bins] != 0) raise(&status->nan);
  if (m >= bins) return;
  with_positions(*t.plan, 0, [&]<typename Position>(const Position& position) {
    bin_of(position, t, m) = from_words<typename Position::Sum>(words + kBinWords * m);
  });
}

// Of the tiled form: status.nan beside the sums. launch  1 thread
__global__ void pack_nan(const Status* status, double* nan) { *nan = static_cast<double>(status->nan); }

// n_fp and norm (unless it is null) from the sums of all processes, and status.nan.
//   parts   part_size()
//   launch  p + 1 threads
__global__ void unpack_sums(const double* parts, int64_t p, Sums sums, Status* status) {
  const int64_t i = own_item();
  if (i < p) {
    sums.n_fp[i] = parts[i];
    if (sums.norm) sums.norm[i] = parts[p + i];
  } else if (i == p && parts[sums.norm ? 2 * p : p] != 0) {
    raise(&status->nan);
  }
}

}  // namespace

void sorted::pack(const Input& input, const Tables& tables, const Status* status, int64_t* words,
                  cudaStream_t stream) {
  launch("pack_bins", pack_bins, per_item(2 * input.p + 1), stream, SortedTables(input, tables.device),
         status, words);
}

void sorted::unpack(const Input& input, const Tables& tables, const int64_t* words, Status* status,
                    cudaStream_t stream) {
  launch("unpack_bins", unpack_bins, per_item(2 * input.p + 1), stream, SortedTables(input, tables.device),
         words, status);
}

void tiled::pack(const Input& input, const Status* status, double* sums, cudaStream_t stream) {
  launch("pack_nan", pack_nan, {1, 1}, stream, status, sums + part_size(input) - 1);
}

void tiled::unpack(const Input& input, const double* parts, const Sums& sums, Status* status,
                   cudaStream_t stream) {
  launch("unpack_sums", unpack_sums, per_item(input.p + 1), stream, parts, input.p, sums, status);
}

}  // namespace alrp::cuda

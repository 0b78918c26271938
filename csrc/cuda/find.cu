// Finding the positives among the labels, as many as are ranked by counting.
#include "../keys.h"
#include "array.cuh"
#include "launch.cuh"
#include "sorted.cuh"
#include "stages.h"

namespace alrp::cuda::sorted {
namespace {

constexpr int kLoads = 2;  // of 16 bytes, that a thread issues at once

// Appends the positives to `list`, in any order; drops those beyond input.p.
struct Search {
  Input input;
  int64_t count;  // of labels
  Listed* list;
  Status* status;  // zeroed by the caller
};

// Keeps a positive, a NaN as 0, and reports NaN and impossible labels.
__device__ void visit(const Search& search, Mark mark, int64_t flat, bool& any_ignored) {
  any_ignored |= mark == Mark::kIgnored;
  if (mark == Mark::kInvalid) raise(&search.status->invalid);
  if (mark != Mark::kPositive) return;
  const auto slot =
      static_cast<int64_t>(atomicAdd(reinterpret_cast<unsigned long long*>(&search.status->found), 1ULL));
  if (slot >= search.input.p) return;
  const double score = load(search.input, flat);
  const bool nan = score != score;
  if (nan) raise(&search.status->nan);
  search.list[slot] = {key_of(nan ? 0.0 : score), flat};
}

// Ignored labels may be many: a block reports them once. All threads call.
__device__ void report_ignored(bool any_ignored, Status* status) {
  if (__syncthreads_or(any_ignored) && threadIdx.x == 0) raise(&status->ignored);
}

// The search, where every logit has a label of kBytes.
//   labels   read once, 16 bytes a lane; all zero: nothing to do
//   launch   any grid of kThreads threads
template <int kBytes>
__global__ void __launch_bounds__(kThreads, 4) find_labels(Search search) {
  const Labels& labels = search.input.labels;
  constexpr int kLabels = 16 / kBytes;  // in a load
  constexpr int kBlockLoads = kLoads * kThreads;
  const auto* vectors = static_cast<const ulonglong2*>(labels.data);
  const bool aligned = reinterpret_cast<uintptr_t>(labels.data) % 16 == 0;
  const int64_t end = aligned ? search.count / (kBlockLoads * kLabels) * kBlockLoads : 0;
  bool any_ignored = false;
  for (int64_t v = int64_t{blockIdx.x} * kBlockLoads + threadIdx.x; v < end;
       v += int64_t{gridDim.x} * kBlockLoads) {
    ulonglong2 own[kLoads];
    unsigned long long any = 0;
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      own[u] = vectors[v + u * kThreads];
      any |= own[u].x | own[u].y;
    }
    if (any == 0) continue;
#pragma unroll 1  // such vectors are few
    for (int half = 0; half < 2 * kLoads; ++half) {
      const ulonglong2 pair = half < 2 ? own[0] : own[1];
      uint64_t bits = half % 2 ? pair.y : pair.x;
      const int64_t first = (v + half / 2 * kThreads) * kLabels + half % 2 * (kLabels / 2);
#pragma unroll 1
      for (int64_t i = first; bits != 0; ++i, bits = kBytes == 8 ? 0 : bits >> 8 * kBytes % 64)
        visit(search, flat_mark(labels, bits & ~uint64_t{0} >> (64 - 8 * kBytes)), i, any_ignored);
    }
  }
  sweep_grid<kThreads>(end * kLabels, search.count, [&](int64_t i) {
    visit(search, flat_mark(labels, label_bits(labels, i)), i, any_ignored);
  });
  report_ignored(any_ignored, search.status);
}

// The search, where a row of logits has a class index. launch  any grid of kThreads threads
__global__ void __launch_bounds__(kThreads) find_rows(Search search) {
  const Labels& labels = search.input.labels;
  bool any_ignored = false;
  sweep_grid<kThreads>(0, search.count, [&](int64_t row) {
    const int64_t column = row_class(labels, label_bits(labels, row));
    if (column == kBackground) return;
    visit(search, row_mark(column, max(column, int64_t{0})), row * labels.classes + column, any_ignored);
  });
  report_ignored(any_ignored, search.status);
}

}  // namespace

void list_positives(const Input& input, Listed* list, Status* status, cudaStream_t stream) {
  const Labels& labels = input.labels;
  const Search search{input, label_count(labels, input.n), list, status};
  const int64_t items = labels.classes ? search.count : search.count * labels.bytes / (kLoads * 16);
  auto* kernel = labels.classes      ? find_rows
                 : labels.bytes == 1 ? find_labels<1>
                 : labels.bytes == 2 ? find_labels<2>
                 : labels.bytes == 4 ? find_labels<4>
                                     : find_labels<8>;
  launch("find", kernel, {walking_blocks(items), kThreads}, stream, search);
}

}  // namespace alrp::cuda::sorted

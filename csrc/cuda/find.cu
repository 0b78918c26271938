// Finding the positives among the labels, as many as one block sorts.
#include <algorithm>

#include "launch.h"
#include "sorted.cuh"
#include "stages.h"

namespace alrp::cuda::sorted {
namespace {

constexpr int kBlocks = 4;   // an SM
constexpr int kVectors = 2;  // of 16 bytes, that a thread reads at once

__device__ void report(unsigned long long flags, Status* status) {
  atomicOr(reinterpret_cast<unsigned long long*>(&status->invalid), flags);
}

// Keeps a positive, or reports an impossible label.
__device__ void visit(Mark mark, int64_t flat, int64_t* list, int64_t capacity, Status* status,
                      bool& any_ignored) {
  any_ignored |= mark == Mark::kIgnored;
  if (mark == Mark::kInvalid) report(kInvalidLabel, status);
  if (mark != Mark::kPositive) return;
  const auto place = static_cast<int64_t>(
      atomicAdd(reinterpret_cast<unsigned long long*>(&status->found), 1ULL));  // in no order
  if (place < capacity) list[place] = flat;
}

// Ignored labels may be many: a block reports them once. All threads call.
__device__ void report_ignored(bool any_ignored, Status* status) {
  if (__syncthreads_or(any_ignored) && threadIdx.x == 0) report(kIgnoredLabel, status);
}

// find: appends the flat indices of the positives to `list`, in any order; drops those beyond its capacity.
//   labels   n of kBytes each, read once, 16 bytes a lane; all zero: nothing to do
//   status   found, and flags in invalid; zeroed by the caller
//   launch   any grid of kThreads threads
template <int kBytes>
__global__ void __launch_bounds__(kThreads)
    find_labels(Labels labels, int64_t n, int64_t* list, int64_t capacity, Status* status) {
  constexpr int kLabels = 16 / kBytes;  // in a vector
  constexpr int kTile = kVectors * kThreads;
  const auto* vectors = static_cast<const ulonglong2*>(labels.data);
  const int64_t tiles = reinterpret_cast<uintptr_t>(labels.data) % 16 == 0 ? n / (kTile * kLabels) : 0;
  bool any_ignored = false;
  for (int64_t v = int64_t{blockIdx.x} * kTile + threadIdx.x; v < tiles * kTile;
       v += int64_t{gridDim.x} * kTile) {
    ulonglong2 own[kVectors];
    unsigned long long any = 0;
#pragma unroll
    for (int u = 0; u < kVectors; ++u) {
      own[u] = vectors[v + u * kThreads];
      any |= own[u].x | own[u].y;
    }
    if (any == 0) continue;
#pragma unroll
    for (int half = 0; half < 2 * kVectors; ++half) {
      uint64_t bits = half % 2 ? own[half / 2].y : own[half / 2].x;
      const int64_t first = (v + half / 2 * kThreads) * kLabels + half % 2 * (kLabels / 2);
#pragma unroll 1
      for (int64_t i = first; bits != 0; ++i, bits = kBytes == 8 ? 0 : bits >> 8 * kBytes % 64)
        visit(flat_mark(labels, bits & ~uint64_t{0} >> (64 - 8 * kBytes)), i, list, capacity, status,
              any_ignored);
    }
  }
#pragma unroll 1
  for (int64_t i = tiles * kTile * kLabels + int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * kThreads)
    visit(flat_mark(labels, label_bits(labels, i)), i, list, capacity, status, any_ignored);
  report_ignored(any_ignored, status);
}

// The same for class indices: one of `rows` labels a row of logits. launch  any grid of kThreads threads
__global__ void __launch_bounds__(kThreads)
    find_rows(Labels labels, int64_t rows, int64_t* list, int64_t capacity, Status* status) {
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  bool any_ignored = false;
  for (int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x; row < rows; row += stride) {
    const int64_t column = row_class(labels, label_bits(labels, row));
    const Mark mark = column == kBackground ? Mark::kNegative : row_mark(column, column < 0 ? 0 : column);
    visit(mark, row * labels.classes + column, list, capacity, status, any_ignored);
  }
  report_ignored(any_ignored, status);
}

unsigned grid_of(int64_t items) {
  const int64_t most = int64_t{kBlocks} * current_device().multiprocessors;
  return static_cast<unsigned>(std::clamp<int64_t>(blocks_for(items), 1, most));
}

}  // namespace

void list_positives(const Input& input, int64_t* list, Status* status, cudaStream_t stream) {
  const Labels& labels = input.labels;
  const int64_t n = input.n;
  const auto run = [&](auto* kernel, int64_t count, int64_t items) {
    kernel<<<grid_of(items), kThreads, 0, stream>>>(labels, count, list, input.p, status);
    check_launch("find");
  };
  const int64_t threads = n * labels.bytes / (kVectors * 16);  // of which each has whole vectors
  if (labels.classes)
    run(find_rows, label_count(labels, n), label_count(labels, n));
  else if (labels.bytes == 1)
    run(find_labels<1>, n, threads);
  else if (labels.bytes == 2)
    run(find_labels<2>, n, threads);
  else if (labels.bytes == 4)
    run(find_labels<4>, n, threads);
  else
    run(find_labels<8>, n, threads);
}

}  // namespace alrp::cuda::sorted

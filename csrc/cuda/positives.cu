// Finding and sorting the positives: CUB selects them in the order of their flat index and sorts them by
// score.
#include <thrust/iterator/counting_iterator.h>

#include <climits>
#include <cstddef>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_select.cuh>
#include <iterator>

#include "../arena.h"
#include "../keys.h"
#include "array.cuh"
#include "launch.h"
#include "stages.h"

namespace alrp::cuda {
namespace {

// Whether label i holds a positive; reports impossible labels on the way.
struct IsPositive {
  Labels labels;
  Status* status;

  __device__ bool operator()(int64_t i) const {
    const uint64_t bits = label_bits(labels, i);
    bool positive, invalid;
    if (labels.classes) {
      const int64_t column = row_class(labels, bits);
      positive = column >= 0;
      invalid = column == kInvalidRow;
    } else {
      const Mark mark = flat_mark(labels, bits);
      positive = mark == Mark::kPositive;
      invalid = mark == Mark::kInvalid;
    }
    if (invalid) raise(&status->invalid);
    return positive;
  }
};

// Output iterator that turns the r-th positive label into its logit's flat index and drops what is beyond the
// capacity: the caller's number of positives may be wrong, and nothing may be written out of bounds.
struct IndexSink {
  using iterator_category = std::random_access_iterator_tag;
  using value_type = int64_t;
  using difference_type = std::ptrdiff_t;
  using pointer = void;

  Labels labels;
  int64_t* index;
  int64_t capacity;
  int64_t offset;

  struct Slot {
    const IndexSink& sink;
    int64_t place;

    __device__ void operator=(int64_t label) const {
      if (place >= sink.capacity) return;
      const Labels& labels = sink.labels;
      sink.index[place] =
          labels.classes ? label * labels.classes + row_class(labels, label_bits(labels, label)) : label;
    }
  };
  using reference = Slot;

  __host__ __device__ IndexSink operator+(std::ptrdiff_t n) const {
    return {labels, index, capacity, offset + n};
  }
  __device__ Slot operator*() const { return {*this, offset}; }
};

// DeviceSelect counts in 32 bits before CCCL 2.8, which is CUDA 12.9's.
constexpr int64_t kMostLabels = CCCL_VERSION >= 2008000 ? INT64_MAX : INT_MAX;

cudaError_t select(void* temp, size_t& bytes, const Input& input, int64_t* index, int64_t capacity,
                   Status* status, cudaStream_t stream) {
  const int64_t labels = label_count(input.labels, input.n);
  if (labels > kMostLabels)
    throw std::runtime_error("alrp_cuda: " + std::to_string(labels) +
                             " labels take a build with CUDA 12.9 or newer");
  return cub::DeviceSelect::If(temp, bytes, thrust::counting_iterator<int64_t>(0),
                               IndexSink{input.labels, index, capacity, 0}, &status->found, labels,
                               IsPositive{input.labels, status}, stream);
}

cudaError_t sort(void* temp, size_t& bytes, const uint64_t* keys, uint64_t* sorted, const int64_t* places,
                 int64_t* place, const Input& input, cudaStream_t stream) {
  const int begin = input.logits.dtype == Dtype::kFloat64 ? 0 : kFloatRoom;  // each 8 bits are a pass
  return cub::DeviceRadixSort::SortPairs(temp, bytes, keys, sorted, places, place, input.p, begin, 64,
                                         stream);
}

// Scratch of this file: flat indices, keys before and after the sort, places before it, and CUB's own.
struct Scratch {
  int64_t* flat;
  uint64_t* keys;
  uint64_t* sorted;
  int64_t* places;
  void* temp;
  size_t temp_bytes;
  size_t bytes;

  Scratch(const Input& input, void* base, cudaStream_t stream) {
    size_t select_bytes = 0, sort_bytes = 0;
    if (input.n) check(select(nullptr, select_bytes, input, nullptr, 0, nullptr, stream), "DeviceSelect");
    if (input.p)
      check(sort(nullptr, sort_bytes, nullptr, nullptr, nullptr, nullptr, input, stream), "DeviceRadixSort");
    temp_bytes = select_bytes > sort_bytes ? select_bytes : sort_bytes;
    Arena arena(base);
    flat = arena.take<int64_t>(input.p);
    keys = arena.take<uint64_t>(input.p);
    sorted = arena.take<uint64_t>(input.p);
    places = arena.take<int64_t>(input.p);
    temp = arena.take<char>(static_cast<int64_t>(temp_bytes));
    bytes = arena.bytes();
  }
};

// keys: the p positives in *descending* flat order, so that the stable sort leaves ties in it.
//   in      flat (p), of which status.found are set; launch  p threads
//   out     keys, places (p); what was not found sorts last; a NaN counts as 0 and is reported
__global__ void make_keys(Array logits, const int64_t* flat, int64_t p, uint64_t* keys, int64_t* places,
                          Status* status) {
  const int64_t r = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (r >= p) return;
  const int64_t place = p - 1 - r;
  places[r] = place;
  if (place >= status->found) {
    keys[r] = ~uint64_t{0};
    return;
  }
  const double score = load(logits, flat[place]);
  const bool nan = score != score;
  if (nan) raise(&status->nan);
  keys[r] = key_of(nan ? 0.0 : score);
}

// tables: index and score of the sorted positives; for what was not found -1, and infinity, for scores have to
// ascend. launch  p threads
__global__ void unpack_keys(const uint64_t* sorted, const int64_t* place, const int64_t* flat, int64_t p,
                            const Status* status, int64_t* index, double* score) {
  const int64_t r = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (r >= p) return;
  const bool found = place[r] < status->found;
  index[r] = found ? flat[place[r]] : -1;
  score[r] = found ? score_of(sorted[r]) : HUGE_VAL;
}

}  // namespace

size_t positives_scratch_bytes(const Input& input, cudaStream_t stream) {
  return Scratch(input, nullptr, stream).bytes;
}

void count_positives(const Input& input, Status* status, void* scratch, cudaStream_t stream) {
  Scratch work(input, scratch, stream);
  check(cudaMemsetAsync(status, 0, sizeof(Status), stream), "memset of status");
  if (input.n) check(select(work.temp, work.temp_bytes, input, nullptr, 0, status, stream), "DeviceSelect");
}

void find_positives(const Input& input, const Tables& tables, int64_t* place, Status* status, void* scratch,
                    cudaStream_t stream) {
  Scratch work(input, scratch, stream);
  check(cudaMemsetAsync(status, 0, sizeof(Status), stream), "memset of status");
  if (input.n)
    check(select(work.temp, work.temp_bytes, input, work.flat, input.p, status, stream), "DeviceSelect");
  if (input.p == 0) return;
  const unsigned blocks = grid_for(input.p);
  make_keys<<<blocks, kThreads, 0, stream>>>(input.logits, work.flat, input.p, work.keys, work.places,
                                             status);
  check_launch("make_keys");
  check(sort(work.temp, work.temp_bytes, work.keys, work.sorted, work.places, place, input, stream),
        "DeviceRadixSort");
  unpack_keys<<<blocks, kThreads, 0, stream>>>(work.sorted, place, work.flat, input.p, status, tables.index,
                                               tables.score);
  check_launch("unpack_keys");
}

}  // namespace alrp::cuda

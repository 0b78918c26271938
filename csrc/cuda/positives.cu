// Finding and sorting the positives: CUB selects them in the order of their flat index and sorts them by
// score.
#include <thrust/iterator/counting_iterator.h>

#include <algorithm>
#include <bit>
#include <climits>
#include <cstddef>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_select.cuh>
#include <iterator>
#include <tuple>

#include "../arena.h"
#include "../keys.h"
#include "array.cuh"
#include "launch.cuh"
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

// The scratch of this file: flat indices, keys before and after the sort, places before it, and CUB's own.
// Without memory, select and sort only set temp_bytes to what CUB needs.
struct CubScratch {
  int64_t* flat = nullptr;
  uint64_t* keys = nullptr;
  uint64_t* sorted = nullptr;
  int64_t* places = nullptr;
  void* temp = nullptr;
  size_t temp_bytes = 0;
  size_t bytes = 0;
};

// The first `capacity` positives' flat indices, ascending; status.found and .invalid.
void select(CubScratch& work, const Input& input, int64_t capacity, Status* status, cudaStream_t stream) {
  if (input.n == 0) return;
  const int64_t labels = label_count(input.labels, input.n);
  if (labels > kMostLabels)
    throw std::runtime_error("alrp_cuda: " + std::to_string(labels) +
                             " labels take a build with CUDA 12.9 or newer");
  check(cub::DeviceSelect::If(work.temp, work.temp_bytes, thrust::counting_iterator<int64_t>(0),
                              IndexSink{input.labels, work.flat, capacity, 0}, &status->found, labels,
                              IsPositive{input.labels, status}, stream),
        "DeviceSelect");
}

void sort(CubScratch& work, const Input& input, int64_t* place, cudaStream_t stream) {
  if (input.p == 0) return;
  const int begin = input.logits.dtype == Dtype::kFloat64 ? 0 : kFloatRoom;  // each 8 bits are a pass
  check(cub::DeviceRadixSort::SortPairs(work.temp, work.temp_bytes, work.keys, work.sorted, work.places,
                                        place, input.p, begin, 64, stream),
        "DeviceRadixSort");
}

// What CUB needs for so many labels and positives. It asks the device for it, so sizes are rounded up to powers
// of two, and asked for once.
size_t temp_bytes(Input input, cudaStream_t stream) {
  const auto up = [](int64_t size) {
    return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(size)));
  };
  const int64_t count = label_count(input.labels, input.n),
                labels = std::max(count, std::min(up(count), kMostLabels));
  input.n = labels * std::max<int64_t>(1, input.labels.classes);
  input.p = up(input.p);
  const bool wide = input.logits.dtype == Dtype::kFloat64;
  return once(std::tuple(current_device().number, labels, input.p, wide), [&] {
    CubScratch for_select, for_sort;
    select(for_select, input, 0, nullptr, stream);
    sort(for_sort, input, nullptr, stream);
    return std::max(for_select.temp_bytes, for_sort.temp_bytes);
  });
}

CubScratch take_scratch(const Input& input, void* base, cudaStream_t stream) {
  CubScratch work;
  work.temp_bytes = temp_bytes(input, stream);
  Arena arena(base);
  work.flat = arena.take<int64_t>(input.p);
  work.keys = arena.take<uint64_t>(input.p);
  work.sorted = arena.take<uint64_t>(input.p);
  work.places = arena.take<int64_t>(input.p);
  work.temp = arena.take<char>(static_cast<int64_t>(work.temp_bytes));
  work.bytes = arena.bytes();
  return work;
}

// work.keys and .places of the p positives, in *descending* flat order, so that the stable sort keeps ties in
// it. A positive that was not found sorts last; a NaN counts as 0 and is reported.
//   in      work.flat, of which status.found are set
//   launch  p threads
__global__ void make_keys(Input input, CubScratch work, Status* status) {
  const int64_t r = own_item();
  if (r >= input.p) return;
  const int64_t place = input.p - 1 - r;
  work.places[r] = place;
  if (place >= status->found) {
    work.keys[r] = ~uint64_t{0};
    return;
  }
  const double score = load(input, work.flat[place]);
  const bool nan = score != score;
  if (nan) raise(&status->nan);
  work.keys[r] = key_of(nan ? 0.0 : score);
}

// tables.index and .score of the sorted positives; -1 and infinity, so that scores ascend, where fewer than p
// were found.
//   in      work.sorted and .flat; place, from the sort
//   launch  p threads
__global__ void unpack_keys(CubScratch work, Tables tables, const int64_t* place, int64_t p,
                            const Status* status) {
  const int64_t r = own_item();
  if (r >= p) return;
  const bool found = place[r] < status->found;
  tables.index[r] = found ? work.flat[place[r]] : -1;
  tables.score[r] = found ? score_of(work.sorted[r]) : HUGE_VAL;
}

}  // namespace

size_t positives_scratch_bytes(const Input& input, cudaStream_t stream) {
  return take_scratch(input, nullptr, stream).bytes;
}

void count_positives(const Input& input, Status* status, void* scratch, cudaStream_t stream) {
  CubScratch work = take_scratch(input, scratch, stream);
  check(cudaMemsetAsync(status, 0, sizeof(Status), stream), "memset of status");
  select(work, input, 0, status, stream);
}

void find_positives(const Input& input, const Tables& tables, int64_t* place, Status* status, void* scratch,
                    cudaStream_t stream) {
  CubScratch work = take_scratch(input, scratch, stream);
  check(cudaMemsetAsync(status, 0, sizeof(Status), stream), "memset of status");
  // Not looked for: each of many would be reported by an atomic of its own.
  check(cudaMemsetAsync(&status->ignored, 1, sizeof(status->ignored), stream), "memset of status");
  select(work, input, input.p, status, stream);
  launch("make_keys", make_keys, per_item(input.p), stream, input, work, status);
  sort(work, input, place, stream);
  launch("unpack_keys", unpack_keys, per_item(input.p), stream, work, tables, place, input.p, status);
}

}  // namespace alrp::cuda

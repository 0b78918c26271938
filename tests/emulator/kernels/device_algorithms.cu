// CUB's device-wide algorithms behind extern "C" functions, as a library of launch functions uses them.
// Each returns the first cudaError_t; a null workspace asks for its size.
#include <thrust/iterator/counting_iterator.h>

#include <cstdint>
#include <cub/device/device_merge_sort.cuh>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#include <cub/device/device_select.cuh>

namespace {

struct IsPositive {
  const int64_t* labels;
  __device__ bool operator()(int64_t i) const { return labels[i] == 1; }
};

// Writes the score at each selected index, and the index itself.
struct Gather {
  const float* scores;
  float* selected_scores;
  int64_t* selected_indices;

  struct Reference {
    const Gather* gather;
    int64_t position;
    __device__ const Reference& operator=(int64_t index) const {
      gather->selected_scores[position] = gather->scores[index];
      gather->selected_indices[position] = index;
      return *this;
    }
  };
  using iterator_category = std::random_access_iterator_tag;
  using value_type = void;
  using difference_type = int64_t;
  using pointer = void;
  using reference = Reference;
  __host__ __device__ Reference operator[](int64_t i) const { return {this, i}; }
  __host__ __device__ Gather operator+(int64_t i) const {
    return {scores, selected_scores + i, selected_indices + i};
  }
  __host__ __device__ Reference operator*() const { return {this, 0}; }
};

struct Less {
  __device__ bool operator()(float a, float b) const { return a < b; }
};

}  // namespace

extern "C" int select_positives(void* workspace, size_t* bytes, const int64_t* labels, const float* scores,
                                float* selected_scores, int64_t* selected_indices, int64_t* count, int64_t n,
                                cudaStream_t stream) {
  return cub::DeviceSelect::If(workspace, *bytes, thrust::counting_iterator<int64_t>(0),
                               Gather{scores, selected_scores, selected_indices}, count, n,
                               IsPositive{labels}, stream);
}

extern "C" int sort_pairs(void* workspace, size_t* bytes, const uint64_t* keys, uint64_t* sorted_keys,
                          const int32_t* values, int32_t* sorted_values, int n, cudaStream_t stream) {
  return cub::DeviceRadixSort::SortPairs(workspace, *bytes, keys, sorted_keys, values, sorted_values, n, 0,
                                         64, stream);
}

extern "C" int scan(void* workspace, size_t* bytes, const double* x, double* sums, int n,
                    cudaStream_t stream) {
  return cub::DeviceScan::InclusiveSum(workspace, *bytes, x, sums, n, stream);
}

extern "C" int merge_sort(void* workspace, size_t* bytes, float* keys, int n, cudaStream_t stream) {
  return cub::DeviceMergeSort::SortKeys(workspace, *bytes, keys, n, Less{}, stream);
}

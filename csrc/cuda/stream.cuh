// What the two streaming kernels of the sorted form share: tiles of logits, the search for a segment, and
// launches. They go map by map as memory lies, and take every logit for a negative: positives are taken out of the bins
// (build_tables) and written over (scatter_gradients), and so is what is ignored (walk_ignored); but where logits lie in
// the order of their own labels, those that are ignored are put below all knots.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include "array.cuh"
#include "block.cuh"
#include "launch.cuh"
#include "sorted.cuh"

namespace alrp::cuda {

constexpr int kStreamThreads = 512;

// A block takes tiles: thread t has the vectors t, t + kStreamThreads, ... of a tile, each of four logits.
constexpr int kVectors = 4;
constexpr int kTile = kVectors * kStreamThreads;
using Vectors = float[kVectors][4];

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Four logits as they lie in memory, in one load: of a uint2 each half would be one.
template <typename T>
using Four = std::conditional_t<sizeof(T) == 4, float4, unsigned long long>;

__device__ __forceinline__ float float_of(float value) { return value; }
__device__ __forceinline__ float float_of(__half value) { return __half2float(value); }
__device__ __forceinline__ float float_of(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ __forceinline__ float4 floats_of(const Four<T>& raw) {
  if constexpr (std::is_same_v<T, float>) {
    return raw;
  } else {
    unsigned short bits[4];
    asm("mov.b64 {%0, %1, %2, %3}, %4;"
        : "=h"(bits[0]), "=h"(bits[1]), "=h"(bits[2]), "=h"(bits[3])
        : "l"(raw));
    const auto number = [](unsigned short half) {
      if constexpr (std::is_same_v<T, __half>)
        return float_of(__ushort_as_half(half));
      else
        return float_of(__ushort_as_bfloat16(half));
    };
    return {number(bits[0]), number(bits[1]), number(bits[2]), number(bits[3])};
  }
}

// A thread's vectors of a tile; v is the first.
template <typename T>
__device__ __forceinline__ void load_vectors(const void* logits, int64_t v, Vectors& s) {
  const Four<T>* own = static_cast<const Four<T>*>(logits) + v;
#pragma unroll
  for (int u = 0; u < kVectors; ++u) {
    const float4 four = floats_of<T>(own[u * kStreamThreads]);
    s[u][0] = four.x, s[u][1] = four.y, s[u][2] = four.z, s[u][3] = four.w;
  }
}

// A map as streams see it.
template <typename T>
struct Stretch {
  void *logits, *gradient;
  int64_t size;
  Labels labels;      // its own, where they are read
  bool reads_labels;  // some may say that theirs is ignored
  int64_t
      vectors;  // of whole tiles that may be read and written as such: none where a pointer is not aligned

  __device__ __forceinline__ Stretch(const Input& input, int k, const Status* status) {
    const Map map = map_at(input.logits, input.n, k);
    logits = map.logits, gradient = map.gradient, size = map.end - map.begin;
    labels = labels_from(input.labels, map.begin);
    reads_labels = has_labels(map, labels) && status->ignored;
    constexpr unsigned bytes = sizeof(Four<T>);
    const unsigned label_bytes = reads_labels ? min(16, 4 * labels.bytes) : 1;
    const bool aligned = reinterpret_cast<uintptr_t>(logits) % bytes == 0 &&
                         reinterpret_cast<uintptr_t>(gradient) % bytes == 0 &&
                         reinterpret_cast<uintptr_t>(labels.data) % label_bytes == 0;
    vectors = aligned ? size / (4 * kTile) * kTile : 0;
  }

  // One by one.
  __device__ __forceinline__ float logit(int64_t i) const {
    return float_of(static_cast<const T*>(logits)[i]);
  }
  __device__ __forceinline__ bool is_ignored(int64_t i) const {
    return reads_labels && mark_of(labels, i) == Mark::kIgnored;
  }
};

// Four labels: bit k says that the k-th is ignored.
__device__ __forceinline__ unsigned ignored_of(const Labels& labels, int64_t v) {
  uint64_t bits[4];
  if (labels.bytes == 1) {
    const uint32_t raw = static_cast<const uint32_t*>(labels.data)[v];
    for (int k = 0; k < 4; ++k) bits[k] = (raw >> 8 * k) & 0xff;
  } else if (labels.bytes == 2) {
    const uint2 raw = static_cast<const uint2*>(labels.data)[v];
    bits[0] = raw.x & 0xffff, bits[1] = raw.x >> 16, bits[2] = raw.y & 0xffff, bits[3] = raw.y >> 16;
  } else if (labels.bytes == 4) {
    const uint4 raw = static_cast<const uint4*>(labels.data)[v];
    bits[0] = raw.x, bits[1] = raw.y, bits[2] = raw.z, bits[3] = raw.w;
  } else {
    const ulonglong2 low = static_cast<const ulonglong2*>(labels.data)[2 * v];
    const ulonglong2 high = static_cast<const ulonglong2*>(labels.data)[2 * v + 1];
    bits[0] = low.x, bits[1] = low.y, bits[2] = high.x, bits[3] = high.y;
  }
  if ((bits[0] | bits[1] | bits[2] | bits[3]) == 0) return 0;
  unsigned ignored = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k)
    ignored |= static_cast<unsigned>(flat_mark(labels, bits[k]) == Mark::kIgnored) << k;
  return ignored;
}

// Puts what is ignored below all knots.
__device__ __forceinline__ void drop_ignored(const Labels& labels, int64_t v, Vectors& s) {
#pragma unroll
  for (int u = 0; u < kVectors; ++u) {
    const unsigned ignored = ignored_of(labels, v + u * kStreamThreads);
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (ignored >> k & 1) s[u][k] = -kInfinity;
  }
}

// The greater one; NaN if either is.
__device__ __forceinline__ float max_nan(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
#else
  return a != a || a > b ? a : b;
#endif
}

__device__ __forceinline__ float greatest(const float (&s)[4]) {
  return max_nan(max_nan(s[0], s[1]), max_nan(s[2], s[3]));
}

__device__ __forceinline__ float least(const float (&s)[4]) {
  return fminf(fminf(s[0], s[1]), fminf(s[2], s[3]));
}

// NaN stays.
__device__ __forceinline__ void limit(float most, float (&s)[4]) {
#pragma unroll
  for (int k = 0; k < 4; ++k) s[k] = s[k] > most ? most : s[k];
}

// A value of 32 bits that the compiler keeps in a register instead of computing it again for every logit.
__device__ __forceinline__ uint32_t fixed(size_t value) {
  auto result = static_cast<uint32_t>(value);
  asm("" : "+r"(result));
  return result;
}

// The starts of the cells, 16 bytes at a time: the arrays have room for what is copied beyond the last one.
__device__ __forceinline__ void copy_starts(const SortedTables& t, int cells, uint16_t* starts) {
  constexpr int kStarts = sizeof(uint4) / sizeof(uint16_t);
  for (int v = threadIdx.x; v <= cells / kStarts; v += kStreamThreads)
    reinterpret_cast<uint4*>(starts)[v] = static_cast<const uint4*>(t.starts)[v];
}

// The first knot, from `m` on, that lies above a score of `cell`, where knot m is at or below it: the score's
// segment. Most cells hold one knot or none; the last upper end is infinite.
template <typename Index, typename Records>
__device__ __forceinline__ int next_segment(const Records& records, const Index* starts, uint32_t cell, int m,
                                            float s) {
  constexpr int kSteps = 4;
  for (int step = 0; step < kSteps; ++step)
    if (s < records.upper(++m)) return m;
  int end = starts[cell + 1];
  while (m < end) {
    const int middle = (m + end) / 2;
    if (s < records.upper(middle))
      end = middle;
    else
      m = middle + 1;
  }
  return m;
}

// Launches choose(type of the logits, shared): a grid that fills the device once, and no more blocks than
// tiles.
template <typename Choose, typename... Arguments>
void launch_stream(const char* name, const Choose& choose, const Input& input, const Tables& tables,
                   cudaStream_t stream, const Arguments&... arguments) {
  const SortedTables t(input, tables.device);
  const auto run = [&](auto type) {
    auto* kernel = t.shared ? choose(type, std::true_type()) : choose(type, std::false_type());
    const size_t bytes = t.shared ? t.shared_bytes() : 0;
    const int resident = resident_blocks(reinterpret_cast<const void*>(kernel), kStreamThreads, bytes);
    const int64_t most = std::max<int64_t>(resident, input.n >> 30);
    const auto blocks = std::clamp<int64_t>(blocks_for(input.n, 4 * kTile), 1, most);
    launch(name, kernel, {static_cast<unsigned>(blocks), kStreamThreads, bytes}, stream, input, t,
           arguments...);
  };
  switch (input.logits.dtype) {
    case Dtype::kFloat32:
      return run(std::type_identity<float>());
    case Dtype::kFloat16:
      return run(std::type_identity<__half>());
    case Dtype::kBFloat16:
      return run(std::type_identity<__nv_bfloat16>());
    case Dtype::kFloat64:
      return run(std::type_identity<double>());
  }
}

}  // namespace alrp::cuda

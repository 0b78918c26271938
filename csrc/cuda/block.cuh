// Scans of one block of whole warps, in a fixed order: the same bits on every device.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace alrp::cuda {

struct Plus {
  template <typename T>
  __device__ T operator()(const T& a, const T& b) const {
    return a + b;
  }
};

struct Max {
  __device__ double operator()(double a, double b) const { return a > b ? a : b; }
};

// shuffle(word) of each word of a value: of the value as other lanes have it.
template <typename T, typename Shuffle>
__device__ __forceinline__ T shuffled(const T& value, const Shuffle& shuffle) {
  // Words as wide as the members: pieces of them would go through local memory.
  using Word = std::conditional_t<sizeof(T) % 8 == 0, unsigned long long, uint32_t>;
  constexpr int kWords = sizeof(T) / sizeof(Word);
  static_assert(sizeof(T) % sizeof(Word) == 0);
  Word words[kWords];
  memcpy(words, &value, sizeof(T));
#pragma unroll
  for (int k = 0; k < kWords; ++k) words[k] = shuffle(words[k]);
  T result;
  memcpy(&result, words, sizeof(T));
  return result;
}

template <typename T>
__device__ __forceinline__ T shuffle_up(const T& value, int distance) {
  return shuffled(value, [distance](auto word) { return __shfl_up_sync(0xffffffffu, word, distance); });
}

// The value of one lane.
template <typename T>
__device__ __forceinline__ T broadcast(const T& value, int lane) {
  return shuffled(value, [lane](auto word) { return __shfl_sync(0xffffffffu, word, lane); });
}

template <typename T, typename Operation>
__device__ __forceinline__ T warp_scan(T value, Operation operation) {
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const T other = shuffle_up(value, distance);
    if ((threadIdx.x & 31) >= distance) value = operation(other, value);
  }
  return value;
}

// The sum over a warp, in a fixed order, in every lane.
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int distance = 16; distance; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

// Results of a scan: of all before (T() where there are none), and of all.
template <typename T>
struct Scanned {
  T before, total;
};

// Over the warps of a block, of a value that all lanes of a warp have. T() adds nothing. Not inlined: a
// kernel has many of them, and each is little work. All threads call.
template <typename T, typename Operation>
__device__ __noinline__ Scanned<T> scan_warps(T value) {
  constexpr int kMostWarps = 32;
  __shared__ __align__(16) char storage[kMostWarps * sizeof(T)];
  T* values = reinterpret_cast<T*>(storage);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  if (lane == 0) values[warp] = value;
  __syncthreads();
  const T all = warp_scan(lane < warps ? values[lane] : T(), Operation());
  const T before = broadcast(all, warp ? warp - 1 : 0);
  __syncthreads();  // storage is used again
  return {warp ? before : T(), broadcast(all, warps - 1)};
}

// Inclusive prefix of one value a thread, carried from call to call in every thread. All threads call.
template <typename T, typename Operation>
__device__ __forceinline__ T carried_scan(T value, T& carry, Operation operation) {
  value = warp_scan(value, operation);
  const Scanned<T> scanned = scan_warps<T, Operation>(broadcast(value, 31));
  const T prefix = operation(carry, operation(scanned.before, value));
  carry = operation(carry, scanned.total);
  return prefix;
}

// The sum of one value a thread, in every thread. All threads call.
__device__ __forceinline__ double block_sum(double value) {
  double sum = 0;
  carried_scan(value, sum, Plus());
  return sum;
}

// out[i] = the sum of load(0), ..., load(i), for i below `count`; returns the whole. A warp takes neighbours, and
// issues the loads of all its rows before it needs one. load(i) may read out[i]. All threads call; ends
// with a barrier.
template <typename T, typename Load>
__device__ __forceinline__ T prefix_sums(int count, const Load& load, T* out) {
  constexpr int kRows = 2;  // a block of p threads sums 2p numbers in one run
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  T carry{};
#pragma unroll 1
  for (int base = 0; base < count; base += kRows * blockDim.x) {
    const int first = base + kRows * 32 * warp + lane;
    T rows[kRows], sum{};
#pragma unroll
    for (int u = 0; u < kRows; ++u) rows[u] = first + 32 * u < count ? load(first + 32 * u) : T();
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      rows[u] = sum + warp_scan(rows[u], Plus());
      sum = broadcast(rows[u], 31);
    }
    const Scanned<T> scanned = scan_warps<T, Plus>(sum);
#pragma unroll
    for (int u = 0; u < kRows; ++u)
      if (first + 32 * u < count) out[first + 32 * u] = carry + (scanned.before + rows[u]);
    carry = carry + scanned.total;
  }
  __syncthreads();
  return carry;
}

}  // namespace alrp::cuda

// Scans and sorts of one block of whole warps, in a fixed order: the same bits on every device.
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

// out[i] = the sum of load(0), ..., load(i), for i below `count`; returns the whole. A warp takes neighbours,
// so that warps wait for one another once, however many there are. load(i) may read out[i]. All threads call;
// ends with a barrier.
template <typename T, typename Load>
__device__ __forceinline__ T prefix_sums(int count, const Load& load, T* out) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  const int each = ((count + 31) / 32 + warps - 1) / warps * 32;
  const int begin = min(count, warp * each), end = min(count, begin + each);
  T carry{};
#pragma unroll 1
  for (int base = begin; base < end; base += 32) {
    const int i = base + lane;
    const T sum = carry + warp_scan(i < end ? load(i) : T(), Plus());
    if (i < end) out[i] = sum;
    carry = broadcast(sum, 31);
  }
  const Scanned<T> scanned = scan_warps<T, Plus>(carry);
#pragma unroll 1
  for (int i = begin + lane; i < end; i += 32) out[i] = scanned.before + out[i];
  __syncthreads();
  return scanned.total;
}

// The passes of a bitonic merge from a distance below a warp on, in registers: lane i & 31 has element i.
template <bool kPairs>
__device__ __forceinline__ void merge_in_warp(uint64_t& key, [[maybe_unused]] uint32_t& value, int i, int run,
                                              int from) {
  const bool ascends = (i & run) == 0;
#pragma unroll
  for (int distance = from; distance > 0; distance /= 2) {
    const uint64_t other = __shfl_xor_sync(0xffffffffu, key, distance);
    const bool keeps_lower = ((i & distance) == 0) == ascends;
    if constexpr (kPairs) {
      const uint32_t other_value = __shfl_xor_sync(0xffffffffu, value, distance);
      const bool lower = other < key || (other == key && other_value < value);
      key = lower == keeps_lower ? other : key;
      value = lower == keeps_lower ? other_value : value;
    } else {
      key = (other < key) == keeps_lower ? other : key;
    }
  }
}

// Sorts `size` (a power of two, at least 32) keys ascending, in shared or global memory; where kPairs, pairs
// by key, then by value. All threads call.
template <bool kPairs>
static __device__ __noinline__ void bitonic_sort(uint64_t* keys, [[maybe_unused]] uint32_t* values,
                                                 int size) {
  __syncthreads();
#pragma unroll 1
  for (int run = 32; run <= size; run *= 2) {
#pragma unroll 1
    for (int distance = run / 2; distance >= 32; distance /= 2) {
#pragma unroll 1
      for (int t = threadIdx.x; t < size / 2; t += blockDim.x) {
        const int a = 2 * t - (t & (distance - 1)), b = a + distance;
        const uint64_t key_a = keys[a], key_b = keys[b];
        bool above = key_a > key_b;
        if constexpr (kPairs) above |= key_a == key_b && values[a] > values[b];
        if (above != ((a & run) == 0)) continue;
        keys[a] = key_b, keys[b] = key_a;
        if constexpr (kPairs) {
          const uint32_t value = values[a];
          values[a] = values[b], values[b] = value;
        }
      }
      __syncthreads();
    }
#pragma unroll 1
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
      uint64_t key = keys[i];
      uint32_t value = 0;
      if constexpr (kPairs) value = values[i];
      if (run == 32) {
#pragma unroll
        for (int within = 2; within <= 16; within *= 2)
          merge_in_warp<kPairs>(key, value, i, within, within / 2);
      }
      merge_in_warp<kPairs>(key, value, i, run, 16);
      keys[i] = key;
      if constexpr (kPairs) values[i] = value;
    }
    __syncthreads();
  }
}

}  // namespace alrp::cuda

// Scans and sorts of one block of kBlock threads, in a fixed order: the same bits on every device.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace alrp::cuda {

constexpr int kBlock = 512;  // threads of kernels that work with one block, or with a few that stay

struct Plus {
  template <typename T>
  __device__ T operator()(const T& a, const T& b) const {
    return a + b;
  }
};

struct Max {
  __device__ double operator()(double a, double b) const { return a > b ? a : b; }
};

template <typename T>
__device__ T shuffle_up(const T& value, int distance) {
  // Words as wide as the members: pieces of them would go through local memory.
  using Word = std::conditional_t<sizeof(T) % 8 == 0, unsigned long long, uint32_t>;
  constexpr int kWords = sizeof(T) / sizeof(Word);
  static_assert(sizeof(T) % sizeof(Word) == 0);
  Word words[kWords];
  memcpy(words, &value, sizeof(T));
#pragma unroll
  for (int k = 0; k < kWords; ++k) words[k] = __shfl_up_sync(0xffffffffu, words[k], distance);
  T result;
  memcpy(&result, words, sizeof(T));
  return result;
}

template <typename T, typename Operation>
__device__ T warp_scan(T value, Operation operation) {
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const T other = shuffle_up(value, distance);
    if ((threadIdx.x & 31) >= distance) value = operation(other, value);
  }
  return value;
}

template <typename T>
struct Scanned {
  T prefix, carry;
};

// Not inlined: a block calls it many times, and it is little work.
template <typename T, typename Operation>
__device__ __noinline__ Scanned<T> scan_block(T value, T carry) {
  constexpr int kWarps = kBlock / 32;
  __shared__ __align__(16) char storage[kWarps * sizeof(T)];
  T* totals = reinterpret_cast<T*>(storage);
  const Operation operation;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  value = warp_scan(value, operation);
  if (lane == 31) totals[warp] = value;
  __syncthreads();
  if (warp == 0) {
    const T total = warp_scan(lane < kWarps ? totals[lane] : value, operation);
    if (lane < kWarps) totals[lane] = total;
  }
  __syncthreads();
  const T prefix = operation(carry, warp ? operation(totals[warp - 1], value) : value);
  carry = operation(carry, totals[kWarps - 1]);
  __syncthreads();  // storage is used again
  return {prefix, carry};
}

// Inclusive prefix of one value a thread, carried from call to call in every thread. All threads call.
template <typename T, typename Operation>
__device__ __forceinline__ T carried_scan(T value, T& carry, Operation) {
  const Scanned<T> scanned = scan_block<T, Operation>(value, carry);
  carry = scanned.carry;
  return scanned.prefix;
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

// Sorts `size` (a power of two, at least 32) keys ascending, in shared or global memory; where kPairs, pairs by
// key, then by value. All threads call.
template <bool kPairs>
static __device__ __noinline__ void bitonic_sort(uint64_t* keys, [[maybe_unused]] uint32_t* values,
                                                 int size) {
  __syncthreads();
#pragma unroll 1
  for (int run = 32; run <= size; run *= 2) {
#pragma unroll 1
    for (int distance = run / 2; distance >= 32; distance /= 2) {
#pragma unroll 1
      for (int t = threadIdx.x; t < size / 2; t += kBlock) {
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
    for (int i = threadIdx.x; i < size; i += kBlock) {
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

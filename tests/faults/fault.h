// FAULT(n), in copies of csrc with all their faults: whether the fault of that number is the one that is tried.
// Also notes that it was asked for: a fault that no test reaches needs no trial.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

// The page that processes share: the number of the fault that is tried, and a byte for each, set where it is reached.
struct FaultPage {
  int tried;
  unsigned char reached[1 << 16];

  // Written once, so that threads do not wait for one another.
  bool is_tried(int n) {
    if (!reached[n]) reached[n] = 1;
    return tried == n;
  }
};

inline FaultPage* const fault_page = [] {
  const int file = open(std::getenv("FAULT_PAGE"), O_RDWR);
  void* const page = mmap(nullptr, sizeof(FaultPage), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (page == MAP_FAILED) std::abort();
  close(file);
  return static_cast<FaultPage*>(page);
}();

#ifdef __CUDACC__

// On the emulated device a register, which is the same for it.
template <int n>
__host__ __device__ __forceinline__ bool is_fault_tried() {
#ifdef __CUDA_ARCH__
  unsigned tried;
  asm("mov.u32 %0, %%fault%1;" : "=r"(tried) : "n"(n));
  return tried;
#else
  return fault_page->is_tried(n);
#endif
}

#define FAULT(n) is_fault_tried<n>()

#else

#define FAULT(n) fault_page->is_tried(n)

#endif

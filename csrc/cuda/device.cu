#include <algorithm>
#include <utility>

#include "device.h"
#include "launch.cuh"

namespace alrp::cuda {
namespace {

int current_number() {
  int device = 0;
  check(cudaGetDevice(&device), "device");
  return device;
}

}  // namespace

const Device& current_device() {
  const int device = current_number();
  return once(device, [device] {
    const auto ask = [device](cudaDeviceAttr attribute) {
      int value = 0;
      check(cudaDeviceGetAttribute(&value, attribute, device), "device attribute");
      return value;
    };
    const auto bytes = [&](cudaDeviceAttr attribute) { return static_cast<size_t>(ask(attribute)); };
    return Device{device, ask(cudaDevAttrMultiProcessorCount), bytes(cudaDevAttrMaxSharedMemoryPerBlockOptin),
                  bytes(cudaDevAttrMaxSharedMemoryPerMultiprocessor),
                  bytes(cudaDevAttrReservedSharedMemoryPerBlock)};
  });
}

void allow_dynamic_shared(const void* kernel) {
  once(std::pair(current_number(), kernel), [kernel] {
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, kernel), "kernel attributes");
    const size_t most = current_device().shared_per_block - attributes.sharedSizeBytes;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(most)),
          "shared memory");
    return true;
  });
}

int resident_blocks(const void* kernel, int threads, size_t shared) {
  struct Kernel {
    int blocks;  // a multiprocessor, without dynamic shared memory
    size_t static_shared;
  };
  const Kernel& known = once(std::pair(current_number(), kernel), [=] {
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, kernel), "kernel attributes");
    int blocks = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, 0), "occupancy");
    return Kernel{blocks, attributes.sharedSizeBytes};
  });
  const Device& device = current_device();
  const size_t a_block = shared + known.static_shared + device.shared_reserved;
  const auto fit = static_cast<int>(device.shared_per_multiprocessor / std::max<size_t>(1, a_block));
  return std::max(1, std::min(known.blocks, fit)) * device.multiprocessors;
}

}  // namespace alrp::cuda

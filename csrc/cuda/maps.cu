// Maps as kernels read them, in memory of the device.
#include <algorithm>

#include "launch.cuh"
#include "stages.h"

namespace alrp::cuda {
namespace {

constexpr int kChunk = 16;  // parameters of a kernel have some 4 KB
struct Chunk {
  Map maps[kChunk];
};

// to[k] = chunk.maps[k] for k < count. By parameters, not by a copy from the host: a captured graph may run again when the
// host's memory is gone. launch  one block of kChunk threads
__global__ void __launch_bounds__(kChunk) write_maps(Chunk chunk, int count, Map* to) {
#pragma unroll
  for (int k = 0; k < kChunk; ++k)  // parameters have no addresses
    if (threadIdx.x == k && k < count) to[k] = chunk.maps[k];
}

}  // namespace

void place_maps(const Map* maps, int64_t count, Map* to, cudaStream_t stream) {
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const auto some = static_cast<int>(std::min<int64_t>(kChunk, count - begin));
    Chunk chunk{};
    std::copy_n(maps + begin, some, chunk.maps);
    launch("write_maps", write_maps, {1, kChunk}, stream, chunk, some, to + begin);
  }
}

}  // namespace alrp::cuda

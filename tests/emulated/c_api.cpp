// The ranking code and its CUDA backend with a C interface: what csrc/torch is to the extension, for ctypes.
// Built with nvcc and linked to the emulated device's runtime. Every function returns null or what went
// wrong.
#include <cstring>
#include <exception>

#include "cuda/backend.h"
#include "ranking.h"

namespace {

char message[1024];

template <typename F>
const char* guarded(F&& f) {
  try {
    f();
    return nullptr;
  } catch (const std::exception& error) {
    std::strncpy(message, error.what(), sizeof(message) - 1);
    return message;
  }
}

}  // namespace

extern "C" {

const char* alrp_workspace_bytes(const alrp::Input* input, size_t* bytes) {
  return guarded([&] { *bytes = alrp::workspace_bytes(alrp::cuda::CudaBackend(nullptr), *input); });
}

const char* alrp_table_bytes(const alrp::Input* input, size_t* bytes) {
  return guarded([&] { *bytes = alrp::cuda::CudaBackend(nullptr).table_bytes(*input); });
}

const char* alrp_forward(const alrp::Input* input, const alrp::Spec* spec, const alrp::Output* output,
                         void* workspace, cudaStream_t stream) {
  return guarded([&] {
    alrp::cuda::CudaBackend backend(stream);
    alrp::forward(backend, *input, *spec, *output, workspace);
  });
}

const char* alrp_sums(const alrp::Input* input, const alrp::Sums* sums, const alrp::Output* output,
                      void* workspace, cudaStream_t stream) {
  return guarded([&] {
    alrp::cuda::CudaBackend backend(stream);
    alrp::sums(backend, *input, *sums, *output, workspace);
  });
}

const char* alrp_drive(const alrp::Input* input, const alrp::Drive* drive, const alrp::Tables* tables,
                       cudaStream_t stream) {
  return guarded([&] { alrp::cuda::CudaBackend(stream).drive(*input, *drive, *tables); });
}

const char* alrp_pair_product(const alrp::Input* input, const alrp::Tables* tables, const int64_t* place,
                              const double* weights, int32_t transposed, double* out, cudaStream_t stream) {
  return guarded([&] {
    alrp::cuda::CudaBackend(stream).pair_product(*input, *tables, place, weights, transposed != 0, out);
  });
}

const char* alrp_find_positives(const alrp::Input* input, const alrp::Tables* tables, int64_t* place,
                                alrp::Status* status, void* workspace, cudaStream_t stream) {
  return guarded([&] { alrp::cuda::CudaBackend(stream).find(*input, *tables, place, status, workspace); });
}

const char* alrp_part_size(const alrp::Input* input, int64_t* size) {
  return guarded([&] { *size = alrp::part_size(*input); });
}

const char* alrp_count_part(const alrp::Input* input, const alrp::Tables* tables, alrp::Status* status,
                            void* part, void* workspace, cudaStream_t stream) {
  return guarded([&] {
    alrp::cuda::CudaBackend backend(stream);
    alrp::count_part(backend, *input, *tables, status, part, workspace);
  });
}

const char* alrp_forward_from_parts(const alrp::Input* input, const alrp::Spec* spec, const int64_t* place,
                                    const void* sum, const alrp::Output* output, void* workspace,
                                    cudaStream_t stream) {
  return guarded([&] {
    alrp::cuda::CudaBackend backend(stream);
    alrp::forward_from_parts(backend, *input, *spec, place, sum, *output, workspace);
  });
}

const char* alrp_sums_from_parts(const alrp::Input* input, const alrp::Sums* sums, const void* sum,
                                 const alrp::Output* output, cudaStream_t stream) {
  return guarded([&] {
    alrp::cuda::CudaBackend backend(stream);
    alrp::sums_from_parts(backend, *input, *sums, sum, *output);
  });
}

const char* alrp_backward(const alrp::Input* input, const alrp::Tables* tables,
                          const alrp::Gradients* gradients, cudaStream_t stream) {
  return guarded([&] { alrp::cuda::CudaBackend(stream).spread(*input, *tables, *gradients); });
}

const char* alrp_count_positives(const alrp::Input* input, alrp::Status* status, void* workspace,
                                 cudaStream_t stream) {
  return guarded([&] { alrp::cuda::CudaBackend(stream).count_positives(*input, status, workspace); });
}

}  // extern "C"

// The CUDA backend: launches on one stream, no host synchronisation, no allocation. Free of torch headers.
#pragma once

#include <cuda_runtime.h>

#include "../ranking.h"

namespace alrp::cuda {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(cudaStream_t stream) : stream_(stream) {}

  size_t scratch_bytes(const Input& input) const override;
  void count_positives(const Input& input, Status* status, void* scratch) override;
  void positives(const Input& input, const Tables& tables, int64_t* place, Status* status,
                 void* scratch) override;
  void count(const Input& input, const double* score, double* n_fp, Status* status, void* scratch) override;
  void pair_sums(const Input& input, const Spec& spec, const double* score, const Sums& sums) override;
  void terms(const Input& input, const Spec& spec, const Sums& sums, const Output& output) override;
  void error_gradient(const Input& input, const Sums& sums, const Tables& tables) override;
  void spread(const Input& input, const Tables& tables, const Gradients& gradients, void* scratch) override;
  void scatter(const Input& input, const Tables& tables, const Gradients& gradients) override;

 private:
  size_t positives_scratch_bytes(const Input& input) const;  // positives.cu
  size_t count_scratch_bytes(const Input& input) const;      // tiled.cu

  cudaStream_t stream_;
};

}  // namespace alrp::cuda

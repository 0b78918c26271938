// The CUDA backend: launches on one stream, no host synchronisation, no allocation. Free of torch headers.
#pragma once

#include <cuda_runtime.h>

#include "../ranking.h"

namespace alrp::cuda {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(cudaStream_t stream) : stream_(stream) {}

  size_t scratch_bytes(const Input& input) const override;
  size_t table_bytes(const Input& input) const override;
  void place_maps(const Map* maps, int64_t count, Map* to) override;
  void count_positives(const Input& input, Status* status, void* scratch) override;
  void find(const Input& input, const Tables& tables, int64_t* place, Status* status, void* scratch) override;
  void count(const Input& input, const Spec& spec, const Tables& tables, const Sums& sums, Status* status,
             void* scratch) override;
  void count_part(const Input& input, const Tables& tables, void* part, Status* status,
                  void* scratch) override;
  void count_from_parts(const Input& input, const Spec& spec, const Tables& tables, const void* sum,
                        const Sums& sums, Status* status) override;
  void finish(const Input& input, const Spec& spec, const Sums& sums, const SortErrors& sort,
              const Output& output) override;
  void spread(const Input& input, const Status* status, const Tables& tables,
              const Gradients& gradients) override;
  void drive(const Input& input, const Drive& drive, const Tables& tables) override;
  void pair_product(const Input& input, const Tables& tables, const int64_t* place, const double* weights,
                    bool transposed, double* out) override;

 private:
  cudaStream_t stream_;
};

}  // namespace alrp::cuda

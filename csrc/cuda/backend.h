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
  void count_positives(const Input& input, Status* status, void* scratch) override;
  void positives(const Input& input, const Tables& tables, int64_t* place, Status* status,
                 void* scratch) override;
  void count(const Input& input, const Tables& tables, double* n_fp, Status* status, void* scratch) override;
  void count_part(const Input& input, const Tables& tables, void* part, Status* status,
                  void* scratch) override;
  void count_from_parts(const Input& input, const Tables& tables, const void* sum, double* n_fp,
                        Status* status) override;
  void pair_sums(const Input& input, const Spec& spec, const Tables& tables, const Sums& sums) override;
  void terms(const Input& input, const Spec& spec, const Sums& sums, const Output& output) override;
  void sort_errors(const Input& input, const Spec& spec, const SortErrors& errors, const int64_t* label_at,
                   const Output& output) override;
  void norms(const Input& input, const Tables& tables, double* norm, Status* status, void* scratch) override;
  void drive(const Input& input, const Drive& drive, const Tables& tables) override;
  void pair_product(const Input& input, const Tables& tables, const int64_t* place, const double* weights,
                    bool transposed, double* out) override;
  void error_gradient(const Input& input, const Sums& sums, const Tables& tables) override;
  void spread(const Input& input, const Tables& tables, const Gradients& gradients, void* scratch) override;
  void scatter(const Input& input, const Tables& tables, const Gradients& gradients) override;

 private:
  size_t positives_scratch_bytes(const Input& input) const;  // positives.cu
  size_t count_scratch_bytes(const Input& input) const;      // tiled.cu
  void tiled_count(const Input& input, const Tables& tables, double skew, double* sums, Status* status,
                   void* scratch);

  // The sorted form: it finds, sorts and prepares in `positives`, and has the P-sized stages after count in
  // `terms`.
  static bool is_sorted_form(const Input& input) {
    return input.algorithm == Algorithm::kSorted && input.p > 0;
  }
  size_t sorted_scratch_bytes(const Input& input) const;         // prepare.cu
  void find(const Input& input, int64_t* list, Status* status);  // find.cu
  void sorted_positives(const Input& input, const Tables& tables, int64_t* place, Status* status,
                        void* scratch);  // prepare.cu
  void sort_positives(const Input& input, const Tables& tables, int64_t* place, Status* status,
                      void* scratch);                                                        // positives.cu
  void lay_out(const Input& input, const Tables& tables, Status* status);                    // prepare.cu
  void lay_knots(const Input& input, const Tables& tables);                                  // knots.cu
  void sorted_count(const Input& input, const Tables& tables, Status* status);               // count.cu
  void sorted_spread(const Input& input, const Tables& tables, const Gradients& gradients);  // spread.cu
  void sorted_terms(const Input& input, const Spec& spec, const Sums& sums,
                    const Output& output);  // finish.cu
  void sorted_drive(const Input& input, const Tables& tables);

  cudaStream_t stream_;
};

}  // namespace alrp::cuda

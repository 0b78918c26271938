// The CPU backend: blocks of logits in parallel.
#pragma once

#include <memory>
#include <optional>

#include "../ranking.h"
#include "sorted.h"

namespace alrp::cpu {

class CpuBackend final : public Backend {
 public:
  size_t scratch_bytes(const Input& input) const override;
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
  // Of the pass under way: made by the first stage that needs it.
  std::unique_ptr<SortedForm> sorted_;
  // What count has left to pair_sums, which does both at once.
  struct Uncounted {
    double* n_fp;
    Status* status;
  };
  std::optional<Uncounted> uncounted_;
};

}  // namespace alrp::cpu

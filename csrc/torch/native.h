// The extension's own backends on tensors: checks that keep memory safe, allocation, raw pointers.
#pragma once

#include "kernels.h"

namespace alrp {

// Runs on the device of the logits.
class NativeKernels final : public Kernels {
 public:
  using Kernels::Kernels;

  at::Tensor count_positives(const Problem& problem) const override;
  ForwardResult forward(const Problem& problem, int64_t num_positives, int64_t loss,
                        const std::optional<at::Tensor>& loc_errors, bool want_error_gradient,
                        double eps) const override;
  void backward(const Problem& problem, const at::Tensor& index, const at::Tensor& tables,
                const std::optional<at::Tensor>& grad_cls, const std::optional<at::Tensor>& grad_loc,
                const std::optional<at::Tensor>& grad_logits,
                const std::optional<at::Tensor>& grad_loc_errors) const override;
  SumsResult sums(const Problem& problem, int64_t num_positives) const override;
  void drive(const Problem& problem, const at::Tensor& index, const at::Tensor& tables,
             const at::Tensor& place, const at::Tensor& sums, const at::Tensor& errors, const at::Tensor& z,
             double eps) const override;
  at::Tensor pair_product(const Problem& problem, const at::Tensor& index, const at::Tensor& tables,
                          const at::Tensor& place, const at::Tensor& weights, bool transposed) const override;
  PositivesResult find_positives(const Problem& problem, int64_t num_positives) const override;
  PartResult count_part(const Problem& problem, bool want_error_gradient, const at::Tensor& index,
                        const at::Tensor& score, const at::Tensor& status) const override;
  PartsResult forward_from_parts(const Problem& problem, int64_t loss,
                                 const std::optional<at::Tensor>& values, double eps, const at::Tensor& place,
                                 const at::Tensor& index, const at::Tensor& tables, const at::Tensor& sum,
                                 const at::Tensor& status) const override;
  at::Tensor sums_from_parts(const Problem& problem, const at::Tensor& place, const at::Tensor& index,
                             const at::Tensor& tables, const at::Tensor& sum,
                             const at::Tensor& status) const override;
};

}  // namespace alrp

// Between torch and the ranking code: tensors in, checks that keep memory safe, allocation, raw pointers out.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace alrp {

// How targets label logits; see Labels.
struct TargetLayout {
  int64_t classes;
  int64_t background;
  bool continuous;  // a positive's label is any finite number above 0, not 1
};

// (cls, loc, rank, precision, index, tables, status); see Output, Tables and Status. `tables` is float64:
// the backend's own, then score, share, gradient and, if wanted, error_gradient (p each), then poison.
// Continuous labels are Rank & Sort's, which is told by `loss` and has the rank part in cls, the sort part in loc.
// `status` is int64 (3).
using ForwardResult =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

ForwardResult forward(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout,
                      int64_t num_positives, int64_t loss, const std::optional<at::Tensor>& loc_errors,
                      bool want_error_gradient, double delta, double eps, int64_t algorithm);

// (gradient of logits, gradient of loc_errors), each if its incoming gradient is given. With continuous labels
// both incoming gradients go to the logits.
std::tuple<std::optional<at::Tensor>, std::optional<at::Tensor>> backward(
    const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout, double delta, int64_t algorithm,
    const at::Tensor& index, const at::Tensor& tables, const std::optional<at::Tensor>& grad_cls,
    const std::optional<at::Tensor>& grad_loc, at::ScalarType loc_errors_dtype);

// status, int64 (3), of the labels alone.
at::Tensor count_positives(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout);

}  // namespace alrp

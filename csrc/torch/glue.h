// Between torch and the ranking code: tensors in, checks that keep memory safe, allocation, raw pointers out.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>
#include <vector>

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
// both incoming gradients go to the logits. `others` as Input has it, here and below.
std::tuple<std::optional<at::Tensor>, std::optional<at::Tensor>> backward(
    const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout, double delta, int64_t algorithm,
    const at::Tensor& index, const at::Tensor& tables, const std::optional<at::Tensor>& grad_cls,
    const std::optional<at::Tensor>& grad_loc, at::ScalarType loc_errors_dtype, double skew,
    int64_t others = 0);

// What a loss of the caller's own is made of, P positives each ascending by score: (place, rank_pos, n_fp, norm,
// score, index, tables, status); see Sums and Drive. All but place, index and status are float64, and the
// tables hold no errors until `drive`.
using SumsResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
                              at::Tensor, at::Tensor>;

SumsResult sums(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout,
                int64_t num_positives, double delta, int64_t algorithm, double skew);

// Writes the errors (p) and Z (scalar), float64, into the tables that `backward` reads.
void drive(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout, double delta,
           int64_t algorithm, double skew, const at::Tensor& index, const at::Tensor& tables,
           const at::Tensor& place, const at::Tensor& n_fp, const at::Tensor& norm, const at::Tensor& errors,
           const at::Tensor& z, double eps);

// Weights summed over the other positives, float64 (p) in the order of the flat index; see
// Backend::pair_product.
at::Tensor pair_product(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout,
                        double delta, int64_t algorithm, const at::Tensor& index, const at::Tensor& tables,
                        const at::Tensor& place, const at::Tensor& weights, bool transposed,
                        int64_t others = 0);

// The slices of `sizes` logits, one after the other, each ranked by itself: (cls, loc) with one value a slice,
// (rank, precision, index) one after the other, and the tables of each. `counts` are their numbers of
// positives; `index` counts from the start of each slice.
using SlicesResult =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, std::vector<at::Tensor>>;

SlicesResult forward_slices(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout,
                            const std::vector<int64_t>& sizes, const std::vector<int64_t>& counts,
                            const std::vector<int64_t>& algorithms, int64_t loss,
                            const std::optional<at::Tensor>& loc_errors, bool want_error_gradient,
                            double delta, double eps);

// As backward, with one incoming gradient a slice.
std::tuple<std::optional<at::Tensor>, std::optional<at::Tensor>> backward_slices(
    const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout,
    const std::vector<int64_t>& sizes, const std::vector<int64_t>& counts,
    const std::vector<int64_t>& algorithms, double delta, const at::Tensor& index,
    const std::vector<at::Tensor>& tables, const std::optional<at::Tensor>& grad_cls,
    const std::optional<at::Tensor>& grad_loc, at::ScalarType loc_errors_dtype);

// status, int64 (slices, 3), of the labels of each slice.
at::Tensor count_slices(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout,
                        const std::vector<int64_t>& sizes);

// status, int64 (3), of the labels alone.
at::Tensor count_positives(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout);

}  // namespace alrp

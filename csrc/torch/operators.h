// The torch.library operators below autograd; schemas in operators.cpp.
//
// Operators trust `state`: it must be what ranking_loss, or ranking_sums and then drive_errors, made for the same logits and
// targets.
#pragma once

#include <string>
#include <tuple>

#include "call.h"

namespace alrp {

// (cls, loc, ranks, state). With slices cls and loc have one value a slice. ranks (2, p): rank and precision.
using LossResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using GradientsResult = std::tuple<std::vector<at::Tensor>, at::Tensor>;

// `num_positives` is not read where loc_errors or counts give it.
LossResult ranking_loss(at::TensorList logits, at::TensorList targets, const OptionalTensor& loc_errors,
                        int64_t classes, int64_t background, bool continuous, double delta, int64_t algorithm,
                        int64_t loss, double eps, std::optional<c10::SymInt> num_positives,
                        at::SymIntArrayRef sizes, at::SymIntArrayRef counts, bool want_error_gradient);

// The operator for Python (autograd.cpp): (cls, loc, ranks).
std::tuple<at::Tensor, at::Tensor, at::Tensor> call_ranking_loss(
    const std::vector<at::Tensor>& logits, const at::Tensor& targets, const OptionalTensor& loc_errors,
    int64_t classes, int64_t background, bool continuous, double delta, int64_t algorithm, int64_t loss,
    double eps, const std::optional<c10::SymInt>& num_positives, const std::vector<c10::SymInt>& sizes,
    const std::vector<c10::SymInt>& counts);

// (gradients of logits, gradient of loc_errors), nothing and an empty one without the incoming gradient. With continuous
// labels both incoming gradients go to the logits.
GradientsResult ranking_gradients(at::TensorList logits, at::TensorList targets, int64_t classes,
                                  int64_t background, bool continuous, double delta, int64_t algorithm,
                                  double skew, at::SymIntArrayRef sizes, at::SymIntArrayRef counts,
                                  c10::SymInt num_positives, const at::Tensor& state, bool has_error_gradient,
                                  const OptionalTensor& grad_cls, const OptionalTensor& grad_loc,
                                  at::ScalarType errors_dtype, c10::SymInt others);

// A value whose gradient goes on to it, and by the state to the logits; a copy, of the losses' dtype.
at::Tensor error_driven(at::TensorList logits, const at::Tensor& value, at::TensorList targets,
                        int64_t classes, int64_t background, double delta, int64_t algorithm, double skew,
                        c10::SymInt num_positives, const at::Tensor& state, c10::SymInt others);

// Weights (p) or (k, p), row by row; see Backend::pair_product.
at::Tensor pair_product(at::TensorList logits, at::TensorList targets, int64_t classes, int64_t background,
                        double delta, int64_t algorithm, const at::Tensor& state, const at::Tensor& place,
                        const at::Tensor& weights, bool transposed, c10::SymInt others);

}  // namespace alrp

// The torch.library operators below autograd; schemas in operators.cpp.
//
// Operators trust `index` and `tables`: they must be those that ranking_loss or ranking_sums returned for the same
// logits and targets.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/SymInt.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace alrp {

// The algorithm, or for -1 the faster one with p positives.
int64_t chosen(int64_t algorithm, at::ScalarType dtype, double delta, int64_t p);

using OptionalTensor = std::optional<at::Tensor>;
using LossResult =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, std::vector<at::Tensor>>;
using GradientsResult = std::tuple<at::Tensor, at::Tensor>;

// The operator of that name, which `function` implements. It runs below autograd or above it as the thread's guards say, and
// tracers see the call.
template <auto* function>
const auto& op(const char* name) {
  using Signature = std::remove_pointer_t<decltype(function)>;
  static const auto handle =
      c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Signature>();
  return handle;
}

// `algorithm` is one of Algorithm, or -1 for the faster one. `sizes` (and `counts`): the logits (and positives) of
// slices that follow one another, each ranked by itself, and cls and loc have one value a slice; empty where all
// is one ranking. `num_positives` is not read where loc_errors or counts tell it.
LossResult ranking_loss(const at::Tensor& logits, const at::Tensor& targets, const OptionalTensor& loc_errors,
                        int64_t classes, int64_t background, bool continuous, double delta, int64_t algorithm,
                        std::string backend, int64_t loss, double eps,
                        std::optional<c10::SymInt> num_positives, at::SymIntArrayRef sizes,
                        at::SymIntArrayRef counts, bool want_error_gradient);

// (gradient of logits, gradient of loc_errors), each empty without its incoming gradient. With continuous labels
// both incoming gradients go to the logits. `others` as Problem has it, here and below.
GradientsResult ranking_gradients(const at::Tensor& logits, const at::Tensor& targets, int64_t classes,
                                  int64_t background, bool continuous, double delta, int64_t algorithm,
                                  std::string backend, double skew, at::SymIntArrayRef sizes,
                                  at::SymIntArrayRef counts, const at::Tensor& index, at::TensorList tables,
                                  const OptionalTensor& grad_cls, const OptionalTensor& grad_loc,
                                  at::ScalarType errors_dtype, c10::SymInt others);

// A value whose gradient goes on to it, and by the tables to the logits; a copy, of the losses' dtype.
at::Tensor error_driven(const at::Tensor& logits, const at::Tensor& value, const at::Tensor& targets,
                        int64_t classes, int64_t background, double delta, int64_t algorithm,
                        std::string backend, double skew, const at::Tensor& index, const at::Tensor& tables,
                        c10::SymInt others);

// Weights (p) or (k, p), row by row; see Kernels::pair_product.
at::Tensor pair_product(const at::Tensor& logits, const at::Tensor& targets, int64_t classes,
                        int64_t background, double delta, int64_t algorithm, std::string backend,
                        const at::Tensor& index, const at::Tensor& tables, const at::Tensor& place,
                        const at::Tensor& weights, bool transposed, c10::SymInt others);

}  // namespace alrp

// Autograd of the losses: error-driven gradients, which are no derivative and have none.
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>

#include "operators.h"

namespace alrp {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

OptionalTensor optional(const at::Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

// In saved_data, as tracers need: what a model holds fixed as one entry, for each takes microseconds of a step; what may be
// symbolic, or belongs to few calls, beside it. Neither a skew nor other processes: such losses go another way.
void save(AutogradContext* ctx, const Call& call) {
  auto& saved = ctx->saved_data;
  saved["fixed"] = std::make_tuple(call.classes, call.background, call.continuous, call.delta, call.algorithm,
                                   call.wants_error_gradient);
  saved["positives"] = call.positives;
  if (!call.sizes.empty()) {
    saved["sizes"] = call.sizes;
    saved["counts"] = call.counts;
  }
}

Call saved_call(AutogradContext* ctx) {
  auto& saved = ctx->saved_data;
  const auto& fixed = saved["fixed"].toTupleRef().elements();
  Call call{fixed[0].toInt(), fixed[1].toInt(), fixed[2].toBool(), fixed[3].toDouble(), fixed[4].toInt()};
  call.wants_error_gradient = fixed[5].toBool();
  call.positives = saved["positives"].toSymInt();
  if (const auto found = saved.find("sizes"); found != saved.end()) {
    call.sizes = found->second.toSymIntVector();
    call.counts = saved["counts"].toSymIntVector();
  }
  return call;
}

GradientsResult gradients(const Call& c, at::TensorList logits, const at::Tensor& targets,
                          const at::Tensor& state, const OptionalTensor& grad_cls,
                          const OptionalTensor& grad_loc, at::ScalarType errors_dtype) {
  return op<ranking_gradients>("ranking_gradients")
      .call(logits, {targets}, c.classes, c.background, c.continuous, c.delta, c.algorithm, c.skew, c.sizes,
            c.counts, c.positives, state, c.wants_error_gradient, grad_cls, grad_loc, errors_dtype, c.others);
}

class RankingLoss : public Function<RankingLoss> {
 public:
  static variable_list forward(AutogradContext* ctx, at::TensorList logits, const OptionalTensor& loc_errors,
                               const at::Tensor& targets, Call c, int64_t loss, double eps,
                               const std::optional<c10::SymInt>& num_positives) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [cls, loc, ranks, state] =
        op<ranking_loss>("ranking_loss")
            .call(logits, {targets}, loc_errors, c.classes, c.background, c.continuous, c.delta, c.algorithm,
                  loss, eps, num_positives, c.sizes, c.counts, c.wants_error_gradient);
    variable_list kept{targets, state};
    kept.insert(kept.end(), logits.begin(), logits.end());
    ctx->save_for_backward(std::move(kept));
    c.positives = ranks.sym_size(1);
    save(ctx, c);
    if (loc_errors) ctx->saved_data["errors_dtype"] = static_cast<int64_t>(loc_errors->scalar_type());
    ctx->set_materialize_grads(false);
    ctx->mark_non_differentiable({ranks, state});
    return {cls, loc, ranks, state};
  }

  // An output that took no part in the loss sends a zero gradient, never none: parameters stay connected.
  static variable_list backward(AutogradContext* ctx, variable_list incoming) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &targets = saved[0], &state = saved[1];
    const at::TensorList logits = at::TensorList(saved).slice(2);
    const Call call = saved_call(ctx);
    const auto dtype = ctx->saved_data.find("errors_dtype");
    const bool has_errors = dtype != ctx->saved_data.end();
    const auto errors_dtype =
        has_errors ? static_cast<at::ScalarType>(dtype->second.toInt()) : at::ScalarType::Float;
    const size_t many = logits.size();  // inputs, and then loc_errors
    bool needs_logits = false;
    for (size_t k = 0; k < many; ++k) needs_logits |= ctx->needs_input_grad(k);
    const bool needs_errors = has_errors && ctx->needs_input_grad(many);

    at::Tensor grad_cls = incoming[0], grad_loc = incoming[1];
    // Both go to the logits, and to those with grad_cls alone.
    if (call.continuous && grad_loc.defined() && !grad_cls.defined()) grad_cls = at::zeros_like(grad_loc);
    if (!needs_logits) grad_cls.reset();
    if (!(call.continuous ? needs_logits : needs_errors)) grad_loc.reset();

    variable_list results;
    at::Tensor grad_errors;
    if (grad_cls.defined() || grad_loc.defined())
      std::tie(results, grad_errors) =
          gradients(call, logits, targets, state, optional(grad_cls), optional(grad_loc), errors_dtype);
    if (!grad_cls.defined())
      for (const at::Tensor& each : logits)
        results.push_back(needs_logits ? at::zeros_like(each) : at::Tensor());
    if (!grad_loc.defined() || call.continuous)
      grad_errors = needs_errors ? at::zeros_symint({call.positives}, logits[0].options().dtype(errors_dtype))
                                 : at::Tensor();
    results.push_back(grad_errors);
    results.resize(many + 6);  // nothing for the other arguments
    return results;
  }
};

LossResult ranking_loss_autograd(at::TensorList logits, at::TensorList targets,
                                 const OptionalTensor& loc_errors, int64_t classes, int64_t background,
                                 bool continuous, double delta, int64_t algorithm, int64_t loss, double eps,
                                 std::optional<c10::SymInt> num_positives, at::SymIntArrayRef sizes,
                                 at::SymIntArrayRef counts, bool want_error_gradient) {
  const auto requires_grad = [](const at::Tensor& tensor) { return tensor.requires_grad(); };
  const bool wanted =
      c10::GradMode::is_enabled() && (continuous ? std::any_of(logits.begin(), logits.end(), requires_grad)
                                                 : loc_errors && loc_errors->requires_grad());
  const Call call{classes, background,  continuous,   delta, algorithm,
                  1,       sizes.vec(), counts.vec(), 0,     want_error_gradient || wanted};
  const variable_list results =
      RankingLoss::apply(logits, loc_errors, only(targets), call, loss, eps, num_positives);
  return {results[0], results[1], results[2], results[3]};
}

// Differentiating a gradient raises, whether it is the incoming gradient or the logits that another derivative is
// taken by: a penalty on the gradient (create_graph=True) must not train as if it were not there.
class FirstOrderOnly : public Function<FirstOrderOnly> {
 public:
  static variable_list forward(AutogradContext*, at::TensorList logits, const at::Tensor& targets,
                               const Call& call, const at::Tensor& state, const OptionalTensor& grad_cls,
                               const OptionalTensor& grad_loc, at::ScalarType errors_dtype) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [grad_logits, grad_errors] =
        gradients(call, logits, targets, state, grad_cls, grad_loc, errors_dtype);
    grad_logits.insert(grad_logits.begin(), grad_errors);
    return grad_logits;
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    TORCH_CHECK(false,
                "a ranking loss has no second derivative: its gradient is error-driven, no derivative of its "
                "value");
  }
};

GradientsResult ranking_gradients_autograd(at::TensorList logits, at::TensorList targets, int64_t classes,
                                           int64_t background, bool continuous, double delta,
                                           int64_t algorithm, double skew, at::SymIntArrayRef sizes,
                                           at::SymIntArrayRef counts, c10::SymInt num_positives,
                                           const at::Tensor& state, bool has_error_gradient,
                                           const OptionalTensor& grad_cls, const OptionalTensor& grad_loc,
                                           at::ScalarType errors_dtype, c10::SymInt others) {
  const Call call{classes,      background, continuous,         delta,        algorithm, skew, sizes.vec(),
                  counts.vec(), others,     has_error_gradient, num_positives};
  if (!c10::GradMode::is_enabled()) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return gradients(call, logits, only(targets), state, grad_cls, grad_loc, errors_dtype);
  }
  const variable_list results =
      FirstOrderOnly::apply(logits, only(targets), call, state, grad_cls, grad_loc, errors_dtype);
  return {{results.begin() + 1, results.end()}, results[0]};
}

}  // namespace

ALRP_LIBRARY_IMPL(ALRP_LIBRARY, Autograd, m) {
  m.impl("ranking_loss", ranking_loss_autograd);
  m.impl("ranking_gradients", ranking_gradients_autograd);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> call_ranking_loss(
    const std::vector<at::Tensor>& logits, const at::Tensor& targets, const OptionalTensor& loc_errors,
    int64_t classes, int64_t background, bool continuous, double delta, int64_t algorithm, int64_t loss,
    double eps, const std::optional<c10::SymInt>& num_positives, const std::vector<c10::SymInt>& sizes,
    const std::vector<c10::SymInt>& counts) {
  auto [cls, loc, ranks, state] =
      op<ranking_loss>("ranking_loss")
          .call(logits, {targets}, loc_errors, classes, background, continuous, delta, algorithm, loss, eps,
                num_positives, sizes, counts, /*want_error_gradient=*/false);
  return {std::move(cls), std::move(loc), std::move(ranks)};
}

}  // namespace alrp

// Autograd of the operators: error-driven gradients, which are no derivative and have none.
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "operators.h"

namespace alrp {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

OptionalTensor optional(const at::Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

at::Tensor zeros_where_undefined(const at::Tensor& tensor, const at::Tensor& like) {
  return tensor.defined() ? tensor : at::zeros_like(like);
}

// What a call is but for its tensors. Travels in saved_data, as tracers need: what a model holds fixed as one entry, for
// each takes microseconds of a step; what may be symbolic, or belongs to few calls, beside it.
struct Options {
  int64_t classes, background;
  bool continuous;
  double delta;
  int64_t algorithm;
  std::string backend;
  double skew = 1;
  std::vector<c10::SymInt> sizes = {}, counts = {};
  c10::SymInt others = 0;

  void save(AutogradContext* ctx) const {
    auto& saved = ctx->saved_data;
    saved["fixed"] = std::make_tuple(classes, background, continuous, delta, algorithm, backend, skew);
    if (!sizes.empty()) {
      saved["sizes"] = sizes;
      saved["counts"] = counts;
    }
    if (others.maybe_as_int() != 0) saved["others"] = others;
  }

  static Options saved(AutogradContext* ctx) {
    auto& saved = ctx->saved_data;
    const auto& fixed = saved["fixed"].toTupleRef().elements();
    Options o{fixed[0].toInt(), fixed[1].toInt(),       fixed[2].toBool(),  fixed[3].toDouble(),
              fixed[4].toInt(), fixed[5].toStringRef(), fixed[6].toDouble()};
    if (const auto found = saved.find("sizes"); found != saved.end()) {
      o.sizes = found->second.toSymIntVector();
      o.counts = saved["counts"].toSymIntVector();
    }
    if (const auto found = saved.find("others"); found != saved.end()) o.others = found->second.toSymInt();
    return o;
  }
};

GradientsResult gradients(const Options& o, const at::Tensor& logits, const at::Tensor& targets,
                          const at::Tensor& index, at::TensorList tables, const OptionalTensor& grad_cls,
                          const OptionalTensor& grad_loc, at::ScalarType errors_dtype) {
  return op<ranking_gradients>("alrp_cuda::ranking_gradients")
      .call(logits, targets, o.classes, o.background, o.continuous, o.delta, o.algorithm, o.backend, o.skew,
            o.sizes, o.counts, index, tables, grad_cls, grad_loc, errors_dtype, o.others);
}

class RankingLoss : public Function<RankingLoss> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& logits,
                               const OptionalTensor& loc_errors, const at::Tensor& targets, const Options& o,
                               int64_t loss, double eps, const std::optional<c10::SymInt>& num_positives,
                               bool want_error_gradient) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [cls, loc, rank, precision, index, tables] =
        op<ranking_loss>("alrp_cuda::ranking_loss")
            .call(logits, targets, loc_errors, o.classes, o.background, o.continuous, o.delta, o.algorithm,
                  o.backend, loss, eps, num_positives, o.sizes, o.counts, want_error_gradient);
    variable_list saved{logits, targets, index};
    saved.insert(saved.end(), tables.begin(), tables.end());
    ctx->save_for_backward(std::move(saved));
    o.save(ctx);
    if (loc_errors) ctx->saved_data["errors_dtype"] = static_cast<int64_t>(loc_errors->scalar_type());
    ctx->set_materialize_grads(false);
    variable_list results{cls, loc, rank, precision, index};
    results.insert(results.end(), tables.begin(), tables.end());
    ctx->mark_non_differentiable({results.begin() + 2, results.end()});
    return results;
  }

  // An output that took no part in the loss sends a zero gradient, never none: parameters stay connected.
  static variable_list backward(AutogradContext* ctx, variable_list incoming) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &logits = saved[0], &targets = saved[1], &index = saved[2];
    const auto tables = at::TensorList(saved).slice(3);
    const Options o = Options::saved(ctx);
    const auto dtype = ctx->saved_data.find("errors_dtype");
    const bool has_errors = dtype != ctx->saved_data.end();
    const auto errors_dtype =
        has_errors ? static_cast<at::ScalarType>(dtype->second.toInt()) : at::ScalarType::Float;
    const bool needs_logits = ctx->needs_input_grad(0);
    const bool needs_errors = has_errors && ctx->needs_input_grad(1);

    at::Tensor grad_cls = incoming[0], grad_loc = incoming[1];
    if (o.continuous && (grad_cls.defined() || grad_loc.defined())) {  // both go to the logits
      grad_cls = zeros_where_undefined(grad_cls, grad_loc);
      grad_loc = zeros_where_undefined(grad_loc, grad_cls);
    }
    if (!needs_logits) grad_cls.reset();
    if (!(o.continuous ? needs_logits : needs_errors)) grad_loc.reset();

    at::Tensor grad_logits, grad_errors;
    if (grad_cls.defined() || grad_loc.defined()) {
      std::tie(grad_logits, grad_errors) =
          gradients(o, logits, targets, index, tables, optional(grad_cls), optional(grad_loc), errors_dtype);
    }
    if (!grad_cls.defined()) grad_logits = needs_logits ? at::zeros_like(logits) : at::Tensor();
    if (!grad_loc.defined() || o.continuous)
      grad_errors = needs_errors ? at::zeros_like(index, index.options().dtype(errors_dtype)) : at::Tensor();
    return {grad_logits, grad_errors, {}, {}, {}, {}, {}, {}};
  }
};

LossResult ranking_loss_autograd(const at::Tensor& logits, const at::Tensor& targets,
                                 const OptionalTensor& loc_errors, int64_t classes, int64_t background,
                                 bool continuous, double delta, int64_t algorithm, std::string backend,
                                 int64_t loss, double eps, std::optional<c10::SymInt> num_positives,
                                 at::SymIntArrayRef sizes, at::SymIntArrayRef counts,
                                 bool want_error_gradient) {
  const bool wanted = c10::GradMode::is_enabled() &&
                      (continuous ? logits.requires_grad() : loc_errors && loc_errors->requires_grad());
  const Options options{classes, background, continuous,  delta,       algorithm,
                        backend, 1,          sizes.vec(), counts.vec()};
  const variable_list results = RankingLoss::apply(logits, loc_errors, targets, options, loss, eps,
                                                   num_positives, want_error_gradient || wanted);
  return {results[0], results[1], results[2], results[3], results[4], {results.begin() + 5, results.end()}};
}

// Differentiating a gradient raises, whether it is the incoming gradient or the logits that another derivative is
// taken by: a penalty on the gradient (create_graph=True) must not train as if it were not there.
class FirstOrderOnly : public Function<FirstOrderOnly> {
 public:
  static variable_list forward(AutogradContext*, const at::Tensor& logits, const at::Tensor& targets,
                               const Options& o, const at::Tensor& index, const variable_list& tables,
                               const OptionalTensor& grad_cls, const OptionalTensor& grad_loc,
                               at::ScalarType errors_dtype) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [grad_logits, grad_errors] =
        gradients(o, logits, targets, index, tables, grad_cls, grad_loc, errors_dtype);
    return {grad_logits, grad_errors};
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    TORCH_CHECK(false,
                "a ranking loss has no second derivative: its gradient is error-driven, no derivative of its "
                "value");
  }
};

GradientsResult ranking_gradients_autograd(const at::Tensor& logits, const at::Tensor& targets,
                                           int64_t classes, int64_t background, bool continuous, double delta,
                                           int64_t algorithm, std::string backend, double skew,
                                           at::SymIntArrayRef sizes, at::SymIntArrayRef counts,
                                           const at::Tensor& index, at::TensorList tables,
                                           const OptionalTensor& grad_cls, const OptionalTensor& grad_loc,
                                           at::ScalarType errors_dtype, c10::SymInt others) {
  const Options o{classes, background, continuous,  delta,        algorithm,
                  backend, skew,       sizes.vec(), counts.vec(), others};
  if (!c10::GradMode::is_enabled()) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return gradients(o, logits, targets, index, tables, grad_cls, grad_loc, errors_dtype);
  }
  const variable_list results =
      FirstOrderOnly::apply(logits, targets, o, index, tables.vec(), grad_cls, grad_loc, errors_dtype);
  return {results[0], results[1]};
}

class ErrorDriven : public Function<ErrorDriven> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits, const at::Tensor& value,
                            const at::Tensor& targets, const Options& o, const at::Tensor& index,
                            const at::Tensor& tables) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({logits, targets, index, tables});
    o.save(ctx);
    ctx->saved_data["dtype"] = static_cast<int64_t>(value.scalar_type());
    return op<error_driven>("alrp_cuda::error_driven")
        .call(logits, value, targets, o.classes, o.background, o.delta, o.algorithm, o.backend, o.skew, index,
              tables, o.others);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& incoming) {
    const variable_list saved = ctx->get_saved_variables();
    const auto dtype = static_cast<at::ScalarType>(ctx->saved_data["dtype"].toInt());
    at::Tensor grad_logits;
    if (ctx->needs_input_grad(0))
      grad_logits = std::get<0>(gradients(Options::saved(ctx), saved[0], saved[1], saved[2], {saved[3]},
                                          incoming[0], std::nullopt, at::kFloat));
    return {grad_logits, incoming[0].to(dtype), {}, {}, {}, {}};
  }
};

at::Tensor error_driven_autograd(const at::Tensor& logits, const at::Tensor& value, const at::Tensor& targets,
                                 int64_t classes, int64_t background, double delta, int64_t algorithm,
                                 std::string backend, double skew, const at::Tensor& index,
                                 const at::Tensor& tables, c10::SymInt others) {
  const Options o{classes, background, false, delta, algorithm, backend, skew, {}, {}, others};
  return ErrorDriven::apply(logits, value, targets, o, index, tables);
}

// Linear in the weights; the ranks are constants.
class PairProduct : public Function<PairProduct> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& weights, const at::Tensor& logits,
                            const at::Tensor& targets, const Options& o, const at::Tensor& index,
                            const at::Tensor& tables, const at::Tensor& place, bool transposed) {
    ctx->save_for_backward({logits, targets, index, tables, place});
    o.save(ctx);
    ctx->saved_data["transposed"] = transposed;
    const at::AutoDispatchBelowADInplaceOrView guard;
    return multiply(o, logits, targets, index, tables, place, weights, transposed);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& incoming) {
    const variable_list saved = ctx->get_saved_variables();
    const bool transposed = ctx->saved_data["transposed"].toBool();
    return {multiply(Options::saved(ctx), saved[0], saved[1], saved[2], saved[3], saved[4], incoming[0],
                     !transposed),
            {},
            {},
            {},
            {},
            {},
            {},
            {}};
  }

 private:
  static at::Tensor multiply(const Options& o, const at::Tensor& logits, const at::Tensor& targets,
                             const at::Tensor& index, const at::Tensor& tables, const at::Tensor& place,
                             const at::Tensor& weights, bool transposed) {
    return op<pair_product>("alrp_cuda::pair_product")
        .call(logits, targets, o.classes, o.background, o.delta, o.algorithm, o.backend, index, tables, place,
              weights, transposed, o.others);
  }
};

at::Tensor pair_product_autograd(const at::Tensor& logits, const at::Tensor& targets, int64_t classes,
                                 int64_t background, double delta, int64_t algorithm, std::string backend,
                                 const at::Tensor& index, const at::Tensor& tables, const at::Tensor& place,
                                 const at::Tensor& weights, bool transposed, c10::SymInt others) {
  const Options o{classes, background, false, delta, algorithm, backend, 1, {}, {}, others};
  return PairProduct::apply(weights, logits, targets, o, index, tables, place, transposed);
}

}  // namespace

TORCH_LIBRARY_IMPL(alrp_cuda, Autograd, m) {
  m.impl("ranking_loss", ranking_loss_autograd);
  m.impl("ranking_gradients", ranking_gradients_autograd);
  m.impl("error_driven", error_driven_autograd);
  m.impl("pair_product", pair_product_autograd);
}

}  // namespace alrp

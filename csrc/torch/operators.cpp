#include "operators.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/stack.h>
#include <torch/library.h>

#include <numeric>

#include "../ranking.h"
#include "kernels.h"
#include "status.h"

namespace alrp {

// Where the sorted form needs its wide positions (csrc/positions.h), it costs as much as the tiled one with some
// hundred positives; else it is the faster one with any number.
int64_t chosen(int64_t algorithm, at::ScalarType dtype, double delta, int64_t p) {
  if (algorithm >= 0) return algorithm;
  const bool wide = dtype == at::kDouble || delta == 0;
  return static_cast<int64_t>(wide && p <= 160 ? Algorithm::kTiled : Algorithm::kSorted);
}

namespace {

// P by a look at the labels that the host waits for.
int64_t count(const Kernels& kernels, Problem problem) {
  problem.algorithm = static_cast<int64_t>(Algorithm::kTiled);  // any; not read
  return positives_of(kernels.count_positives(problem), problem.layout);
}

Problem problem_of(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout, double delta = 1,
                   int64_t algorithm = 0, double skew = 1, const c10::SymInt& others = 0) {
  return {logits.contiguous(),
          targets.contiguous(),
          layout,
          delta,
          algorithm,
          skew,
          others.guard_int(__FILE__, __LINE__)};
}

std::vector<int64_t> integers(at::SymIntArrayRef symbols) {
  std::vector<int64_t> values;
  for (const c10::SymInt& symbol : symbols) values.push_back(symbol.guard_int(__FILE__, __LINE__));
  return values;
}

OptionalTensor contiguous(const OptionalTensor& tensor) {
  if (!tensor) return std::nullopt;
  return tensor->contiguous();
}

// The part of a tensor that belongs to one slice, if there is a tensor.
OptionalTensor part(const OptionalTensor& whole, int64_t begin, int64_t size) {
  if (!whole) return std::nullopt;
  return whole->narrow(0, begin, size);
}

// f(slice, its first logit, its problem) for the slices of `sizes` logits.
template <typename F>
void each_slice(const Problem& whole, const std::vector<int64_t>& sizes, F&& f) {
  const at::Tensor logits = whole.logits.view({-1}), targets = whole.targets.view({-1});
  const int64_t classes = std::max<int64_t>(1, whole.layout.classes);
  const int64_t total = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  TORCH_CHECK_VALUE(total == logits.numel() && targets.numel() * classes == total,
                    "sizes must add up to the ", logits.numel(), " logits, got ", total);
  int64_t begin = 0;
  for (size_t s = 0; s < sizes.size(); ++s) {
    const int64_t size = sizes[s];
    TORCH_CHECK_VALUE(size >= 0 && size % classes == 0, "a slice must hold whole rows, got ", size);
    Problem own = whole;
    own.logits = logits.narrow(0, begin, size);
    own.targets = targets.narrow(0, begin / classes, size / classes);
    f(s, begin, own);
    begin += size;
  }
}

// cat, of nothing too.
at::Tensor joined(const std::vector<at::Tensor>& parts, const at::Tensor& like) {
  return parts.empty() ? at::empty({0}, like.options()) : at::cat(parts);
}

LossResult slices_loss(const Kernels& kernels, const Problem& whole, const OptionalTensor& loc_errors,
                       int64_t loss, double eps, const std::vector<int64_t>& sizes,
                       const std::vector<int64_t>& counts, bool want_error_gradient) {
  std::vector<at::Tensor> cls, loc, rank, precision, index, tables;
  int64_t first = 0;
  each_slice(whole, sizes, [&](size_t s, int64_t, Problem own) {
    const int64_t p = counts.at(s);
    own.algorithm = chosen(whole.algorithm, whole.logits.scalar_type(), whole.delta, p);
    const auto [c, l, r, q, i, t, status] =
        kernels.forward(own, p, loss, part(loc_errors, first, p), want_error_gradient, eps);
    cls.push_back(c), loc.push_back(l), rank.push_back(r), precision.push_back(q);
    index.push_back(i), tables.push_back(t);
    first += p;
  });
  return {at::stack(cls),     at::stack(loc), at::cat(rank),
          at::cat(precision), at::cat(index), std::move(tables)};
}

at::Tensor count_positives(const at::Tensor& logits, const at::Tensor& targets, int64_t classes,
                           int64_t background, bool continuous, std::string backend,
                           at::SymIntArrayRef sizes) {
  const TargetLayout layout{classes, background, continuous};
  const Kernels& kernels = kernels_of(backend);
  at::Tensor counts = at::empty({static_cast<int64_t>(sizes.size())}, at::kLong);
  each_slice(problem_of(logits, targets, layout), integers(sizes),
             [&, into = counts.mutable_data_ptr<int64_t>()](size_t s, int64_t, const Problem& own) {
               into[s] = count(kernels, own);
             });
  return counts;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> ranking_sums(
    const at::Tensor& logits, const at::Tensor& targets, int64_t classes, int64_t background, double delta,
    int64_t algorithm, std::string backend, double skew, std::optional<c10::SymInt> num_positives,
    std::string told_by) {
  const TargetLayout layout{classes, background, false};
  const Kernels& kernels = kernels_of(backend);
  Problem problem = problem_of(logits, targets, layout, delta, algorithm, skew);
  const int64_t p = num_positives ? num_positives->guard_int(__FILE__, __LINE__) : count(kernels, problem);
  problem.algorithm = chosen(algorithm, logits.scalar_type(), delta, p);
  const auto [sums, place, index, tables, status] = kernels.sums(problem, p);
  check_status(kernels, status, layout, told_by, p);
  return {sums, place, index, tables, tables.select(0, -1).clone()};
}

void drive_errors(const at::Tensor& logits, const at::Tensor& targets, int64_t classes, int64_t background,
                  double delta, int64_t algorithm, std::string backend, double skew, const at::Tensor& index,
                  const at::Tensor& tables, const at::Tensor& place, const at::Tensor& sums,
                  const at::Tensor& errors, const at::Tensor& z, double eps) {
  const Problem problem = problem_of(logits, targets, {classes, background, false}, delta,
                                     chosen(algorithm, logits.scalar_type(), delta, index.numel()), skew);
  kernels_of(backend).drive(problem, index, tables, place, sums, errors.contiguous(), z, eps);
}

}  // namespace

LossResult ranking_loss(const at::Tensor& logits, const at::Tensor& targets, const OptionalTensor& loc_errors,
                        int64_t classes, int64_t background, bool continuous, double delta, int64_t algorithm,
                        std::string backend, int64_t loss, double eps,
                        std::optional<c10::SymInt> num_positives, at::SymIntArrayRef sizes,
                        at::SymIntArrayRef counts, bool want_error_gradient) {
  const TargetLayout layout{classes, background, continuous};
  const Kernels& kernels = kernels_of(backend);
  Problem problem = problem_of(logits, targets, layout, delta, algorithm);
  const OptionalTensor errors = contiguous(loc_errors);
  if (!sizes.empty())
    return slices_loss(kernels, problem, errors, loss, eps, integers(sizes), integers(counts),
                       want_error_gradient);
  const int64_t p = errors          ? errors->numel()
                    : num_positives ? num_positives->guard_int(__FILE__, __LINE__)
                                    : count(kernels, problem);
  problem.algorithm = chosen(algorithm, logits.scalar_type(), delta, p);
  auto [cls, loc, rank, precision, index, tables, status] =
      kernels.forward(problem, p, loss, errors, want_error_gradient, eps);
  check_status(kernels, status, layout, errors ? "loc_errors" : "num_positives", p);
  return {cls, loc, rank, precision, index, {tables}};
}

GradientsResult ranking_gradients(const at::Tensor& logits, const at::Tensor& targets, int64_t classes,
                                  int64_t background, bool continuous, double delta, int64_t algorithm,
                                  std::string backend, double skew, at::SymIntArrayRef sizes,
                                  at::SymIntArrayRef counts, const at::Tensor& index, at::TensorList tables,
                                  const OptionalTensor& grad_cls, const OptionalTensor& grad_loc,
                                  at::ScalarType errors_dtype, c10::SymInt others) {
  const Kernels& kernels = kernels_of(backend);
  const Problem whole =
      problem_of(logits, targets, {classes, background, continuous}, delta, algorithm, skew, others);
  TORCH_CHECK_TYPE(!grad_cls || !grad_loc || grad_cls->scalar_type() == grad_loc->scalar_type(),
                   "grad_cls and grad_loc must have one dtype, got ", grad_cls->scalar_type(), " and ",
                   grad_loc->scalar_type());
  const OptionalTensor cls = contiguous(grad_cls), loc = contiguous(grad_loc);
  OptionalTensor grad_logits, grad_errors;
  if (cls) grad_logits = at::empty(logits.sizes(), logits.options());
  if (loc && !continuous) grad_errors = at::empty_like(index, index.options().dtype(errors_dtype));
  const auto choice = [&](int64_t p) { return chosen(algorithm, logits.scalar_type(), delta, p); };
  if (sizes.empty()) {
    TORCH_CHECK_VALUE(tables.size() == 1, "tables must be one tensor, got ", tables.size());
    Problem problem = whole;
    problem.algorithm = choice(index.numel());
    kernels.backward(problem, index, tables[0], cls, loc, grad_logits, grad_errors);
  } else {
    OptionalTensor flat;
    if (grad_logits) flat = grad_logits->view({-1});
    const std::vector<int64_t> positives = integers(counts);
    int64_t first = 0;
    each_slice(whole, integers(sizes), [&](size_t s, int64_t begin, Problem own) {
      const auto slice = static_cast<int64_t>(s);
      const int64_t p = positives.at(s);
      own.algorithm = choice(p);
      kernels.backward(own, index.narrow(0, first, p), tables.at(s), part(cls, slice, 1), part(loc, slice, 1),
                       part(flat, begin, own.logits.numel()), part(grad_errors, first, p));
      first += p;
    });
  }
  return {grad_logits ? *grad_logits : at::empty({0}, logits.options()),
          grad_errors ? *grad_errors : at::empty({0}, index.options().dtype(errors_dtype))};
}

at::Tensor error_driven(const at::Tensor& logits, const at::Tensor& value, const at::Tensor&, int64_t,
                        int64_t, double, int64_t, std::string, double, const at::Tensor&, const at::Tensor&,
                        c10::SymInt) {
  return value.to(logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat, /*non_blocking=*/false,
                  /*copy=*/true);
}

at::Tensor pair_product(const at::Tensor& logits, const at::Tensor& targets, int64_t classes,
                        int64_t background, double delta, int64_t algorithm, std::string backend,
                        const at::Tensor& index, const at::Tensor& tables, const at::Tensor& place,
                        const at::Tensor& weights, bool transposed, c10::SymInt others) {
  const int64_t p = index.numel();
  const Problem problem = problem_of(logits, targets, {classes, background, false}, delta,
                                     chosen(algorithm, logits.scalar_type(), delta, p), 1, others);
  std::vector<at::Tensor> sums;
  const at::Tensor rows = weights.contiguous().view({weights.dim() == 2 ? weights.size(0) : 1, p});
  for (int64_t k = 0; k < rows.size(0); ++k)
    sums.push_back(kernels_of(backend).pair_product(problem, index, tables, place, rows[k], transposed));
  return joined(sums, weights).view(weights.sizes());
}

TORCH_LIBRARY(alrp_cuda, m) {
  m.def(
      "ranking_loss(Tensor logits, Tensor targets, Tensor? loc_errors, int classes, int background, "
      "bool continuous, float delta, int algorithm, str backend, int loss, float eps, SymInt? num_positives, "
      "SymInt[] sizes, SymInt[] counts, bool want_error_gradient=False) -> "
      "(Tensor cls, Tensor loc, Tensor rank, Tensor precision, Tensor index, Tensor[] tables)");
  m.def(
      "ranking_gradients(Tensor logits, Tensor targets, int classes, int background, bool continuous, "
      "float delta, int algorithm, str backend, float skew, SymInt[] sizes, SymInt[] counts, Tensor index, "
      "Tensor[] tables, Tensor? grad_cls, Tensor? grad_loc, ScalarType errors_dtype, SymInt others=0) -> "
      "(Tensor grad_logits, Tensor grad_loc_errors)");
  m.def(
      "ranking_sums(Tensor logits, Tensor targets, int classes, int background, float delta, int algorithm, "
      "str backend, float skew, SymInt? num_positives, str told_by) -> "
      "(Tensor sums, Tensor place, Tensor index, Tensor tables, Tensor poison)");
  m.def(
      "drive_errors(Tensor logits, Tensor targets, int classes, int background, float delta, int algorithm, "
      "str backend, float skew, Tensor index, Tensor(a!) tables, Tensor place, Tensor sums, Tensor errors, "
      "Tensor z, float eps) -> ()");
  m.def(
      "error_driven(Tensor logits, Tensor value, Tensor targets, int classes, int background, float delta, "
      "int algorithm, str backend, float skew, Tensor index, Tensor tables, SymInt others=0) -> Tensor");
  m.def(
      "pair_product(Tensor logits, Tensor targets, int classes, int background, float delta, int algorithm, "
      "str backend, Tensor index, Tensor tables, Tensor place, Tensor weights, bool transposed, "
      "SymInt others=0) -> Tensor");
  m.def(
      "count_positives(Tensor logits, Tensor targets, int classes, int background, bool continuous, "
      "str backend, SymInt[] sizes) -> Tensor");
}

namespace {

void implement(torch::Library& m) {
  m.impl("ranking_loss", ranking_loss);
  m.impl("ranking_gradients", ranking_gradients);
  m.impl("ranking_sums", ranking_sums);
  m.impl("drive_errors", drive_errors);
  m.impl("error_driven", error_driven);
  m.impl("pair_product", pair_product);
  m.impl("count_positives", count_positives);
}

}  // namespace

TORCH_LIBRARY_IMPL(alrp_cuda, CPU, m) { implement(m); }

#ifdef ALRP_WITH_CUDA
TORCH_LIBRARY_IMPL(alrp_cuda, CUDA, m) { implement(m); }
#endif

}  // namespace alrp

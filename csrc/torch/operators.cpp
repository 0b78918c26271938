#include "operators.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <numeric>

#include "status.h"
#include "tensors.h"

namespace alrp {
namespace {

OptionalTensor contiguous(const OptionalTensor& tensor) {
  if (!tensor) return std::nullopt;
  return tensor->contiguous();
}

// The logits and targets of a call.
struct Problem {
  Views logits;
  at::Tensor targets;
  Call call;

  Problem(at::TensorList all_logits, at::TensorList all_targets, Call of)
      : logits(all_logits), targets(only(all_targets).contiguous()), call(std::move(of)) {}

  Input input(const DeviceScope& device, int64_t p) { return input_of(device, logits, targets, call, p); }

  std::vector<Slice> slices(const DeviceScope& device, int64_t p) {
    return slices_of(device, logits, targets, call, p);
  }

  // P by a look at the labels that the host waits for.
  int64_t count() {
    const DeviceScope device(logits.first(), "count_positives");
    const Input input = this->input(device, 0);
    const auto [memory, status] = allocated(device, "status", [](Arena& a) { return a.take<Status>(1); });
    const auto [workspace, work] = workspace_of(device, input, Loss::kGiven);
    device.backend().count_positives(input, status, work.scratch);
    return positives_of(status, memory, call);
  }
};

}  // namespace

LossResult ranking_loss(at::TensorList logits, at::TensorList targets, const OptionalTensor& loc_errors,
                        int64_t classes, int64_t background, bool continuous, double delta, int64_t algorithm,
                        int64_t loss, double eps, std::optional<c10::SymInt> num_positives,
                        at::SymIntArrayRef sizes, at::SymIntArrayRef counts, bool want_error_gradient) {
  Problem problem(logits, targets,
                  {classes, background, continuous, delta, algorithm, 1, sizes.vec(), counts.vec(), 0,
                   want_error_gradient});
  TORCH_CHECK_VALUE((loss == static_cast<int64_t>(Loss::kRankSort)) == continuous,
                    "continuous labels are those of Rank & Sort");
  const OptionalTensor errors = contiguous(loc_errors);
  int64_t p;
  if (errors)
    p = errors->numel();
  else if (!sizes.empty())
    p = number(std::accumulate(counts.begin(), counts.end(), c10::SymInt(0)));
  else
    p = num_positives ? number(*num_positives) : problem.count();

  const DeviceScope device(problem.logits.first(), "forward");
  Backend& backend = device.backend();
  const Array labels = continuous ? array_of(device, "targets", problem.targets) : Array{};
  const Array given = errors ? array_of(device, "loc_errors", *errors) : labels;
  const std::vector<Slice> slices = problem.slices(device, p);
  TORCH_CHECK_VALUE(slices.back().positive + slices.back().input.p == p,
                    "loc_errors must have one error per positive: counts add up to ",
                    slices.back().positive + slices.back().input.p, ", got ", p, " errors");
  const std::vector<int64_t> scalars(sizes.empty() ? 0 : 1, static_cast<int64_t>(sizes.size()));
  const Results results(device, scalars, p, values_dtype(problem.logits.first().scalar_type()));
  const auto [state, states] =
      allocated(device, "state", [&](Arena& memory) { return take_states(memory, backend, slices); });
  for (size_t s = 0; s < slices.size(); ++s) {
    const auto& [input, label, positive] = slices[s];
    const State& own = states[s];
    auto [workspace, work] = workspace_of(device, input, static_cast<Loss>(loss));
    work.sort.label_at = own.tables.index;
    const Spec spec = spec_of(loss, eps, input, advanced(given, errors ? positive : label));
    backend.find(input, own.tables, work.sums.place, own.status, work.scratch);
    backend.count(input, spec, own.tables, work.sums, own.status, work.scratch);
    backend.finish(input, spec, work.sums, work.sort,
                   results.of_slice(static_cast<int64_t>(s), positive, own));
    if (sizes.empty())
      check_status(device, own.status, state, problem.call, errors ? "loc_errors" : "num_positives", p);
  }
  return {results.cls, results.loc, results.ranks, state};
}

GradientsResult ranking_gradients(at::TensorList logits, at::TensorList targets, int64_t classes,
                                  int64_t background, bool continuous, double delta, int64_t algorithm,
                                  double skew, at::SymIntArrayRef sizes, at::SymIntArrayRef counts,
                                  c10::SymInt num_positives, const at::Tensor& state, bool has_error_gradient,
                                  const OptionalTensor& grad_cls, const OptionalTensor& grad_loc,
                                  at::ScalarType errors_dtype, c10::SymInt others) {
  Problem problem(logits, targets,
                  {classes, background, continuous, delta, algorithm, skew, sizes.vec(), counts.vec(),
                   std::move(others), has_error_gradient});
  TORCH_CHECK_VALUE(!grad_loc || has_error_gradient,
                    "forward was not asked for the gradient of its second part");
  TORCH_CHECK_TYPE(!grad_cls || !grad_loc || grad_cls->scalar_type() == grad_loc->scalar_type(),
                   "grad_cls and grad_loc must have one dtype, got ", grad_cls->scalar_type(), " and ",
                   grad_loc->scalar_type());
  const OptionalTensor cls = contiguous(grad_cls), loc = contiguous(grad_loc);
  const int64_t p = number(num_positives);
  const DeviceScope device(problem.logits.first(), "backward");
  std::vector<at::Tensor> grad_logits;
  if (cls) grad_logits = problem.logits.allocate_gradients(device);
  const std::vector<Slice> slices = problem.slices(device, p);
  TORCH_CHECK_VALUE(slices.back().positive + slices.back().input.p == p, "num_positives must be ",
                    slices.back().positive + slices.back().input.p, ", as counts add up to, got ", p);
  for (const OptionalTensor& grad : {cls, loc})
    TORCH_CHECK_VALUE(!grad || grad->numel() == static_cast<int64_t>(slices.size()),
                      "grad_cls and grad_loc must have one element a slice, ", slices.size(), ", got ",
                      grad->numel());
  const std::vector<State> states = states_of(device, slices, state);

  const auto grad_of = [&](const char* name, const OptionalTensor& grad) {
    return grad ? array_of(device, name, *grad) : Array{};
  };
  const Array from_cls = grad_of("grad_cls", cls), from_loc = grad_of("grad_loc", loc);
  Array to_errors{};
  const bool wants_errors = loc && !continuous;
  const at::Tensor grad_errors = device.allocate("grad of loc_errors", {wants_errors ? p : 0}, errors_dtype);
  if (wants_errors) to_errors = {grad_errors.mutable_data_ptr(), dtype_of(errors_dtype)};
  for (size_t s = 0; s < slices.size(); ++s) {
    const auto& [input, label, positive] = slices[s];
    const void* second = advanced(from_loc, static_cast<int64_t>(s)).data;
    device.backend().spread(input, states[s].status, states[s].tables,
                            {advanced(from_cls, static_cast<int64_t>(s)).data, advanced(to_errors, positive),
                             continuous ? nullptr : second, continuous ? second : nullptr,
                             cls ? from_cls.dtype : from_loc.dtype});
  }
  return {std::move(grad_logits), grad_errors};
}

namespace {

// (sums, place, state, poison). sums (4, p): score, rank+, N_FP and, for a skew other than 1, the norm; ascending by score,
// and place is the flat order. The errors of the state are those of drive_errors. `argument` is where num_positives came from.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> ranking_sums(
    at::TensorList logits, at::TensorList targets, int64_t classes, int64_t background, double delta,
    int64_t algorithm, double skew, std::optional<c10::SymInt> num_positives, std::string argument) {
  Problem problem(logits, targets, {classes, background, false, delta, algorithm, skew});
  const int64_t p = num_positives ? number(*num_positives) : problem.count();
  const DeviceScope device(problem.logits.first(), "sums");
  Backend& backend = device.backend();
  const Input input = problem.input(device, p);
  const at::Tensor place = device.allocate("place", {p}, at::kLong);
  const auto [state, own] =
      allocated(device, "state", [&](Arena& memory) { return take_state(memory, backend, input); });
  const auto [workspace, work] = workspace_of(device, input, Loss::kGiven);
  const GivenSums given(device, input, place.mutable_data_ptr<int64_t>(), own);
  backend.find(input, own.tables, given.rows.place, own.status, work.scratch);
  backend.count(input, kGivenErrors, own.tables, given.rows, own.status, work.scratch);
  backend.finish(input, kGivenErrors, given.rows, {}, given.output);
  check_status(device, own.status, state, problem.call, argument, p);
  return {given.completed(), place, state, given.poison()};
}

double* doubles(const DeviceScope& device, const char* name, const at::Tensor& tensor, int64_t size) {
  TORCH_CHECK_VALUE(tensor.scalar_type() == at::kDouble && tensor.numel() == size, name, " must hold ", size,
                    " float64");
  return static_cast<double*>(const_cast<void*>(device.read(name, tensor)));
}

// Errors (p), in flat order, and Z, float64, for the state that ranking_gradients reads.
void drive_errors(at::TensorList logits, at::TensorList targets, int64_t classes, int64_t background,
                  double delta, int64_t algorithm, double skew, const at::Tensor& state,
                  const at::Tensor& place, const at::Tensor& sums, const at::Tensor& errors,
                  const at::Tensor& z, double eps) {
  Problem problem(logits, targets, {classes, background, false, delta, algorithm, skew});
  const int64_t p = place.numel();
  const DeviceScope device(problem.logits.first(), "drive");
  const Input input = problem.input(device, p);
  const at::Tensor n_fp = sums[2], norm = sums[3], each = errors.contiguous();
  const Drive drive{places(device, place, p),         doubles(device, "n_fp", n_fp, p),
                    doubles(device, "norm", norm, p), doubles(device, "errors", each, p),
                    doubles(device, "z", z, 1),       eps};
  device.backend().drive(input, drive, state_of(device, input, state).tables);
}

}  // namespace

at::Tensor error_driven(at::TensorList logits, const at::Tensor& value, at::TensorList, int64_t, int64_t,
                        double, int64_t, double, c10::SymInt, const at::Tensor&, c10::SymInt) {
  return value.to(values_dtype(logits[0].scalar_type()), /*non_blocking=*/false, /*copy=*/true);
}

at::Tensor pair_product(at::TensorList logits, at::TensorList targets, int64_t classes, int64_t background,
                        double delta, int64_t algorithm, const at::Tensor& state, const at::Tensor& place,
                        const at::Tensor& weights, bool transposed, c10::SymInt others) {
  Problem problem(logits, targets,
                  {classes, background, false, delta, algorithm, 1, {}, {}, std::move(others)});
  const int64_t p = place.numel();
  const DeviceScope device(problem.logits.first(), "pair_product");
  const Input input = problem.input(device, p);
  const State own = state_of(device, input, state);
  const int64_t* order = places(device, place, p);
  const at::Tensor rows = weights.contiguous();
  const double* from = doubles(device, "weights", rows, weights.numel());
  at::Tensor sums = device.allocate("sums", weights.sizes(), at::kDouble);
  for (int64_t k = 0; k < (weights.dim() == 2 ? weights.size(0) : 1); ++k)
    device.backend().pair_product(input, own.tables, order, from + k * p, transposed,
                                  sums.mutable_data_ptr<double>() + k * p);
  return sums;
}

ALRP_LIBRARY_SCHEMAS(ALRP_LIBRARY, m) {
  m.def(
      "ranking_loss(Tensor[] logits, Tensor[] targets, Tensor? loc_errors, int classes, int background, "
      "bool continuous, float delta, int algorithm, int loss, float eps, SymInt? num_positives, SymInt[] "
      "sizes, "
      "SymInt[] counts, bool want_error_gradient=False) -> (Tensor cls, Tensor loc, Tensor ranks, Tensor "
      "state)");
  m.def(
      "ranking_gradients(Tensor[] logits, Tensor[] targets, int classes, int background, bool continuous, "
      "float delta, int algorithm, float skew, SymInt[] sizes, SymInt[] counts, SymInt num_positives, "
      "Tensor state, bool has_error_gradient, Tensor? grad_cls, Tensor? grad_loc, ScalarType errors_dtype, "
      "SymInt others=0) -> "
      "(Tensor[] grad_logits, Tensor grad_loc_errors)");
  m.def(
      "ranking_sums(Tensor[] logits, Tensor[] targets, int classes, int background, float delta, "
      "int algorithm, float skew, SymInt? num_positives, str argument) -> "
      "(Tensor sums, Tensor place, Tensor state, Tensor poison)");
  m.def(
      "drive_errors(Tensor[] logits, Tensor[] targets, int classes, int background, float delta, "
      "int algorithm, float skew, Tensor(a!) state, Tensor place, Tensor sums, Tensor errors, Tensor z, "
      "float eps) -> ()");
  m.def(
      "error_driven(Tensor[] logits, Tensor value, Tensor[] targets, int classes, int background, "
      "float delta, int algorithm, float skew, SymInt num_positives, Tensor state, SymInt others) -> "
      "Tensor");
  m.def(
      "pair_product(Tensor[] logits, Tensor[] targets, int classes, int background, float delta, "
      "int algorithm, Tensor state, Tensor place, Tensor weights, bool transposed, SymInt others) -> "
      "Tensor");
}

namespace {

void implement(torch::Library& m) {
  m.impl("ranking_loss", ranking_loss);
  m.impl("ranking_gradients", ranking_gradients);
  m.impl("ranking_sums", ranking_sums);
  m.impl("drive_errors", drive_errors);
  m.impl("error_driven", error_driven);
  m.impl("pair_product", pair_product);
}

}  // namespace

ALRP_LIBRARY_IMPL(ALRP_LIBRARY, CPU, m) { implement(m); }

#ifdef ALRP_WITH_CUDA
ALRP_LIBRARY_IMPL(ALRP_LIBRARY, CUDA, m) { implement(m); }
#endif

}  // namespace alrp

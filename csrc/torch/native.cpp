#include "native.h"

#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>

#include <memory>

#include "../cpu/backend.h"
#include "../ranking.h"

#ifdef ALRP_WITH_CUDA
#include <c10/cuda/CUDAStream.h>

#include "../cuda/backend.h"
#endif

namespace alrp {
namespace {

Dtype dtype_of(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return Dtype::kFloat32;
    case at::kDouble:
      return Dtype::kFloat64;
    case at::kHalf:
      return Dtype::kFloat16;
    case at::kBFloat16:
      return Dtype::kBFloat16;
    default:
      TORCH_CHECK_TYPE(false, "expected a floating dtype, got ", type);
  }
}

Array array_of(const at::Tensor& tensor) { return {tensor.data_ptr(), dtype_of(tensor.scalar_type())}; }

Labels labels_of(const at::Tensor& targets, TargetLayout layout) {
  const at::ScalarType type = targets.scalar_type();
  Labels labels{targets.data_ptr(), static_cast<int32_t>(targets.element_size()), 1, 1, 0, 0, layout.classes,
                layout.background};
  switch (type) {
    case at::kBool:
    case at::kByte:
    case at::kUInt16:
    case at::kUInt32:
    case at::kUInt64:
      labels.is_signed = 0;
      break;
    case at::kFloat:
      labels.least = 0x3f800000, labels.infinity = 0x7f800000;
      break;
    case at::kDouble:
      labels.least = 0x3ff0000000000000, labels.infinity = 0x7ff0000000000000;
      break;
    case at::kHalf:
      labels.least = 0x3c00, labels.infinity = 0x7c00;
      break;
    case at::kBFloat16:
      labels.least = 0x3f80, labels.infinity = 0x7f80;
      break;
    default:
      TORCH_CHECK_TYPE(at::isIntegralType(type, /*includeBool=*/true), "targets: unexpected dtype ", type);
  }
  if (layout.continuous) {
    TORCH_CHECK_TYPE(labels.infinity, "targets: continuous labels must be floating, got ", type);
    labels.least = 1;
    labels.span = labels.infinity - 2;  // to the greatest finite number
  }
  return labels;
}

Input input_of(const Problem& problem, int64_t p) {
  const auto& [logits, targets, layout, delta, algorithm, skew, others] = problem;
  TORCH_CHECK_VALUE(logits.is_contiguous() && targets.is_contiguous(),
                    "logits and targets must be contiguous");
  TORCH_CHECK_VALUE(targets.device() == logits.device(), "targets must be on the device of logits");
  TORCH_CHECK_VALUE(p >= 0, "the number of positives must be >= 0, got ", p);
  TORCH_CHECK_VALUE(algorithm == 0 || algorithm == 1, "algorithm must be 0 or 1, got ", algorithm);
  const Labels labels = labels_of(targets, layout);
  TORCH_CHECK_VALUE(
      logits.numel() == 0 || targets.numel() * std::max<int64_t>(1, layout.classes) == logits.numel(),
      "targets do not fit logits");
  return {
      array_of(logits), logits.numel(), labels, p, delta, static_cast<Algorithm>(algorithm), skew, others};
}

std::unique_ptr<Backend> backend_of(const at::Tensor& logits) {
#ifdef ALRP_WITH_CUDA
  if (logits.is_cuda())
    return std::make_unique<cuda::CudaBackend>(c10::cuda::getCurrentCUDAStream(logits.get_device()).stream());
#endif
  TORCH_CHECK_VALUE(logits.is_cpu(), "alrp_cuda was built without a backend for device ", logits.device());
  return std::make_unique<cpu::CpuBackend>();
}

at::Tensor workspace_of(const Backend& backend, const Input& input, const at::Tensor& logits) {
  return at::empty({static_cast<int64_t>(workspace_bytes(backend, input))},
                   logits.options().dtype(at::kByte));
}

// Doubles that hold the backend's own tables; they come first, for alignment.
int64_t device_size(const Backend& backend, const Input& input) {
  return static_cast<int64_t>((backend.table_bytes(input) + sizeof(double) - 1) / sizeof(double));
}

Tables tables_of(const Backend& backend, const Input& input, const at::Tensor& index,
                 const at::Tensor& tables) {
  const int64_t p = input.p, device = device_size(backend, input), rows = tables.numel() - device - 1;
  TORCH_CHECK_VALUE(index.is_contiguous() && tables.is_contiguous() && index.numel() == p &&
                        (rows == 3 * p || rows == 4 * p),
                    "index and tables must be those that the forward pass returned");
  auto* data = tables.mutable_data_ptr<double>();
  auto* row = data + device;
  return {index.mutable_data_ptr<int64_t>(),
          row,
          row + p,
          row + 2 * p,
          rows == 4 * p && p > 0 ? row + 3 * p : nullptr,
          row + rows,
          data};
}

double* doubles_of(const at::Tensor& tensor, int64_t size, const at::Tensor& logits) {
  TORCH_CHECK_VALUE(tensor.scalar_type() == at::kDouble && tensor.is_contiguous() && tensor.numel() == size &&
                        tensor.device() == logits.device(),
                    "expected ", size, " contiguous float64 on the device of logits");
  return tensor.data_ptr<double>();
}

int64_t* place_of(const at::Tensor& place, int64_t p) {
  TORCH_CHECK_VALUE(place.is_contiguous() && place.numel() == p,
                    "place must be contiguous, one per positive");
  return place.mutable_data_ptr<int64_t>();
}

Status* status_of(const at::Tensor& status, const at::Tensor& logits) {
  TORCH_CHECK_VALUE(status.scalar_type() == at::kLong && status.is_contiguous() && status.numel() == 3 &&
                        status.device() == logits.device(),
                    "status must be 3 contiguous int64 on the device of logits");
  return reinterpret_cast<Status*>(status.data_ptr());
}

at::ScalarType part_dtype(const Input& input) {
  return input.algorithm == Algorithm::kSorted && input.p > 0 ? at::kLong : at::kDouble;
}

const void* sum_of(const at::Tensor& sum, const Input& input, const at::Tensor& logits) {
  TORCH_CHECK_VALUE(sum.scalar_type() == part_dtype(input) && sum.is_contiguous() &&
                        sum.numel() == part_size(input) && sum.device() == logits.device(),
                    "sum must be as count_part leaves it, ", part_size(input), " elements");
  return sum.const_data_ptr();
}

}  // namespace

ForwardResult NativeKernels::forward(const Problem& problem, int64_t num_positives, int64_t loss,
                                     const std::optional<at::Tensor>& loc_errors, bool want_error_gradient,
                                     double eps) const {
  const at::Tensor& logits = problem.logits;
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = num_positives;
  const Input input = input_of(problem, p);
  Spec spec{static_cast<Loss>(loss), eps, {nullptr, Dtype::kFloat32}, {nullptr, Dtype::kFloat32}};
  TORCH_CHECK_VALUE((spec.loss == Loss::kRankSort) == problem.layout.continuous,
                    "continuous labels are those of Rank & Sort");
  if (problem.layout.continuous) spec.labels = array_of(problem.targets);
  if (loc_errors) {
    TORCH_CHECK_VALUE(
        loc_errors->is_contiguous() && loc_errors->numel() == p && loc_errors->device() == logits.device(),
        "loc_errors must be contiguous, one per positive, on the device of logits");
    spec.loc_errors = array_of(*loc_errors);
  }
  TORCH_CHECK_VALUE(loc_errors || (spec.loss != Loss::kALRP && spec.loss != Loss::kALRPHard),
                    "loc_errors must be given for aLRP");

  const auto values = logits.options().dtype(logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  at::Tensor cls = at::empty({}, values), loc = at::empty({}, values);
  at::Tensor rank = at::empty({p}, values), precision = at::empty({p}, values);
  at::Tensor index = at::empty({p}, logits.options().dtype(at::kLong));
  at::Tensor status = at::empty({3}, logits.options().dtype(at::kLong));
  const auto backend = backend_of(logits);
  at::Tensor tables = at::empty({device_size(*backend, input) + (want_error_gradient ? 4 : 3) * p + 1},
                                logits.options().dtype(at::kDouble));
  const at::Tensor workspace = workspace_of(*backend, input, logits);
  alrp::forward(
      *backend, input, spec,
      {dtype_of(cls.scalar_type()), cls.data_ptr(), loc.data_ptr(), rank.data_ptr(), precision.data_ptr(),
       tables_of(*backend, input, index, tables), reinterpret_cast<Status*>(status.data_ptr())},
      workspace.data_ptr());
  return {cls, loc, rank, precision, index, tables, status};
}

void NativeKernels::backward(const Problem& problem, const at::Tensor& index, const at::Tensor& tables,
                             const std::optional<at::Tensor>& grad_cls,
                             const std::optional<at::Tensor>& grad_loc,
                             const std::optional<at::Tensor>& grad_logits,
                             const std::optional<at::Tensor>& grad_loc_errors) const {
  const c10::OptionalDeviceGuard guard(at::device_of(problem.logits));  // for allocations and launches
  const int64_t p = index.numel();
  const Input input = input_of(problem, p);
  const auto backend = backend_of(problem.logits);
  const Tables known = tables_of(*backend, input, index, tables);
  Gradients gradients{};
  if (grad_cls) {
    gradients.logits = array_of(*grad_logits);
    gradients.grad_cls = grad_cls->const_data_ptr();
    gradients.incoming = dtype_of(grad_cls->scalar_type());
  }
  if (grad_loc) {
    TORCH_CHECK_VALUE(p == 0 || known.error_gradient,
                      "forward was not asked for the gradient of its second part");
    gradients.incoming = dtype_of(grad_loc->scalar_type());
    if (problem.layout.continuous) {
      gradients.grad_sort = grad_loc->const_data_ptr();
    } else {
      gradients.loc_errors = array_of(*grad_loc_errors);
      gradients.grad_loc = grad_loc->const_data_ptr();
    }
  }
  backend->spread(input, known, gradients);
}

SumsResult NativeKernels::sums(const Problem& problem, int64_t num_positives) const {
  const at::Tensor& logits = problem.logits;
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = num_positives;
  const Input input = input_of(problem, p);
  const auto doubles = logits.options().dtype(at::kDouble), integers = logits.options().dtype(at::kLong);
  const auto backend = backend_of(logits);
  const int64_t device = device_size(*backend, input);
  at::Tensor tables = at::empty({device + 3 * p + 1}, doubles), index = at::empty({p}, integers);
  at::Tensor status = at::empty({3}, integers), place = at::empty({p}, integers);
  at::Tensor sums = at::empty({problem.skew == 1 ? 3 : 4, p}, doubles);
  const at::Tensor unused = at::empty({2 * p + 2}, doubles);  // the losses, ranks and precisions
  auto *spare = unused.data_ptr<double>(), *rows = sums.data_ptr<double>();
  const at::Tensor workspace = workspace_of(*backend, input, logits);
  double* norm = problem.skew == 1 ? nullptr : rows + 3 * p;
  alrp::sums(*backend, input, {place.data_ptr<int64_t>(), rows + p, rows + 2 * p, nullptr, norm},
             {Dtype::kFloat64, spare, spare + 1, spare + 2, spare + 2 + p,
              tables_of(*backend, input, index, tables), reinterpret_cast<Status*>(status.data_ptr())},
             workspace.data_ptr());
  sums[0].copy_(tables.narrow(0, device, p));
  return {sums, place, index, tables, status};
}

void NativeKernels::drive(const Problem& problem, const at::Tensor& index, const at::Tensor& tables,
                          const at::Tensor& place, const at::Tensor& sums, const at::Tensor& errors,
                          const at::Tensor& z, double eps) const {
  const at::Tensor& logits = problem.logits;
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for launches
  const int64_t p = index.numel(), rows = problem.skew == 1 ? 3 : 4;
  const Input input = input_of(problem, p);
  const auto backend = backend_of(logits);
  const double* row = doubles_of(sums, rows * p, logits);
  backend->drive(input,
                 {place_of(place, p), row + 2 * p, row + (rows - 1) * p, doubles_of(errors, p, logits),
                  doubles_of(z, 1, logits), eps},
                 tables_of(*backend, input, index, tables));
}

at::Tensor NativeKernels::pair_product(const Problem& problem, const at::Tensor& index,
                                       const at::Tensor& tables, const at::Tensor& place,
                                       const at::Tensor& weights, bool transposed) const {
  const at::Tensor& logits = problem.logits;
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = index.numel();
  const Input input = input_of(problem, p);
  const auto backend = backend_of(logits);
  at::Tensor out = at::empty({p}, logits.options().dtype(at::kDouble));
  backend->pair_product(input, tables_of(*backend, input, index, tables), place_of(place, p),
                        doubles_of(weights, p, logits), transposed, out.data_ptr<double>());
  return out;
}

PositivesResult NativeKernels::find_positives(const Problem& problem, int64_t num_positives) const {
  const at::Tensor& logits = problem.logits;
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = num_positives;
  Input input = input_of(problem, p);
  input.algorithm = Algorithm::kTiled;  // finds and sorts
  const auto integers = logits.options().dtype(at::kLong);
  at::Tensor place = at::empty({p}, integers), index = at::empty({p}, integers);
  at::Tensor score = at::empty({p}, logits.options().dtype(at::kDouble)), status = at::empty({3}, integers);
  const auto backend = backend_of(logits);
  const at::Tensor workspace = workspace_of(*backend, input, logits);
  Tables tables{};
  tables.index = index.data_ptr<int64_t>();
  tables.score = score.data_ptr<double>();
  backend->find(input, tables, place.data_ptr<int64_t>(), status_of(status, logits), workspace.data_ptr());
  return {place, score, index, status};
}

PartResult NativeKernels::count_part(const Problem& problem, bool want_error_gradient,
                                     const at::Tensor& index, const at::Tensor& score,
                                     const at::Tensor& status) const {
  const at::Tensor& logits = problem.logits;
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = index.numel();
  const Input input = input_of(problem, p);
  TORCH_CHECK_VALUE(score.numel() == p, "score must have one element per positive");
  const auto backend = backend_of(logits);
  const int64_t device = device_size(*backend, input);
  at::Tensor tables =
      at::empty({device + (want_error_gradient ? 4 : 3) * p + 1}, logits.options().dtype(at::kDouble));
  tables.narrow(0, device, p).copy_(score);
  at::Tensor part = at::empty({part_size(input)}, logits.options().dtype(part_dtype(input)));
  const at::Tensor workspace = workspace_of(*backend, input, logits);
  alrp::count_part(*backend, input, tables_of(*backend, input, index, tables), status_of(status, logits),
                   part.data_ptr(), workspace.data_ptr());
  return {tables, part};
}

PartsResult NativeKernels::forward_from_parts(const Problem& problem, int64_t loss,
                                              const std::optional<at::Tensor>& values, double eps,
                                              const at::Tensor& place, const at::Tensor& index,
                                              const at::Tensor& tables, const at::Tensor& sum,
                                              const at::Tensor& status) const {
  const at::Tensor& logits = problem.logits;
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = index.numel();
  const Input input = input_of(problem, p);
  Spec spec{static_cast<Loss>(loss), eps, {nullptr, Dtype::kFloat32}, {nullptr, Dtype::kFloat32}};
  if (values) {
    TORCH_CHECK_VALUE(values->is_contiguous() && values->numel() == p && values->device() == logits.device(),
                      "values must be contiguous, one per positive, on the device of logits");
    (problem.layout.continuous ? spec.labels : spec.loc_errors) = array_of(*values);
  }
  const auto dtype = logits.options().dtype(logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  at::Tensor cls = at::empty({}, dtype), loc = at::empty({}, dtype);
  at::Tensor rank = at::empty({p}, dtype), precision = at::empty({p}, dtype);
  const auto backend = backend_of(logits);
  const at::Tensor workspace = workspace_of(*backend, input, logits);
  alrp::forward_from_parts(
      *backend, input, spec, place_of(place, p), sum_of(sum, input, logits),
      {dtype_of(cls.scalar_type()), cls.data_ptr(), loc.data_ptr(), rank.data_ptr(), precision.data_ptr(),
       tables_of(*backend, input, index, tables), status_of(status, logits)},
      workspace.data_ptr());
  return {cls, loc, rank, precision};
}

at::Tensor NativeKernels::sums_from_parts(const Problem& problem, const at::Tensor& place,
                                          const at::Tensor& index, const at::Tensor& tables,
                                          const at::Tensor& sum, const at::Tensor& status) const {
  const at::Tensor& logits = problem.logits;
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = index.numel();
  const Input input = input_of(problem, p);
  const auto doubles = logits.options().dtype(at::kDouble);
  at::Tensor sums = at::empty({problem.skew == 1 ? 3 : 4, p}, doubles);
  const at::Tensor unused = at::empty({2 * p + 2}, doubles);  // the losses, ranks and precisions
  auto *spare = unused.data_ptr<double>(), *rows = sums.data_ptr<double>();
  const auto backend = backend_of(logits);
  double* norm = problem.skew == 1 ? nullptr : rows + 3 * p;
  alrp::sums_from_parts(*backend, input, {place_of(place, p), rows + p, rows + 2 * p, nullptr, norm},
                        sum_of(sum, input, logits),
                        {Dtype::kFloat64, spare, spare + 1, spare + 2, spare + 2 + p,
                         tables_of(*backend, input, index, tables), status_of(status, logits)});
  sums[0].copy_(tables.narrow(0, device_size(*backend, input), p));
  return sums;
}

at::Tensor NativeKernels::count_positives(const Problem& problem) const {
  const c10::OptionalDeviceGuard guard(at::device_of(problem.logits));  // for allocations and launches
  const Input input = input_of(problem, 0);
  at::Tensor status = at::empty({3}, problem.logits.options().dtype(at::kLong));
  const auto backend = backend_of(problem.logits);
  const at::Tensor workspace = workspace_of(*backend, input, problem.logits);
  backend->count_positives(input, reinterpret_cast<Status*>(status.data_ptr()), workspace.data_ptr());
  return status;
}

}  // namespace alrp

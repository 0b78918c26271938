#include "glue.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
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

Input input_of(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout, int64_t p,
               double delta, int64_t algorithm) {
  TORCH_CHECK_VALUE(logits.is_contiguous() && targets.is_contiguous(),
                    "logits and targets must be contiguous");
  TORCH_CHECK_VALUE(targets.device() == logits.device(), "targets must be on the device of logits");
  TORCH_CHECK_VALUE(p >= 0, "the number of positives must be >= 0, got ", p);
  const Labels labels = labels_of(targets, layout);
  TORCH_CHECK_VALUE(
      logits.numel() == 0 || targets.numel() * std::max<int64_t>(1, layout.classes) == logits.numel(),
      "targets do not fit logits");
  return {array_of(logits), logits.numel(), labels, p, delta, static_cast<Algorithm>(algorithm)};
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
  const int64_t p = input.p, device = device_size(backend, input);
  auto* data = tables.mutable_data_ptr<double>();
  auto* rows = data + device;
  const bool has_error_gradient = tables.numel() - device == 4 * p + 1 && p > 0;
  return {index.mutable_data_ptr<int64_t>(),
          rows,
          rows + p,
          rows + 2 * p,
          has_error_gradient ? rows + 3 * p : nullptr,
          data + tables.numel() - 1,
          data};
}

}  // namespace

ForwardResult forward(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout,
                      int64_t num_positives, int64_t loss, const std::optional<at::Tensor>& loc_errors,
                      bool want_error_gradient, double delta, double eps, int64_t algorithm) {
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = num_positives;
  const Input input = input_of(logits, targets, layout, p, delta, algorithm);
  Spec spec{static_cast<Loss>(loss), eps, {nullptr, Dtype::kFloat32}, {nullptr, Dtype::kFloat32}};
  TORCH_CHECK_VALUE((spec.loss == Loss::kRankSort) == layout.continuous,
                    "continuous labels are those of Rank & Sort");
  if (layout.continuous) spec.labels = array_of(targets);
  if (loc_errors) {
    TORCH_CHECK_VALUE(
        loc_errors->is_contiguous() && loc_errors->numel() == p && loc_errors->device() == logits.device(),
        "loc_errors must be contiguous, one per positive, on the device of logits");
    spec.loc_errors = array_of(*loc_errors);
  }

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

std::tuple<std::optional<at::Tensor>, std::optional<at::Tensor>> backward(
    const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout, double delta, int64_t algorithm,
    const at::Tensor& index, const at::Tensor& tables, const std::optional<at::Tensor>& grad_cls,
    const std::optional<at::Tensor>& grad_loc, at::ScalarType loc_errors_dtype) {
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = index.numel();
  const Input input = input_of(logits, targets, layout, p, delta, algorithm);
  const auto backend = backend_of(logits);
  std::optional<at::Tensor> grad_logits, grad_loc_errors;
  Gradients gradients{};
  if (grad_cls) {
    grad_logits = at::empty_like(logits);
    gradients.logits = array_of(*grad_logits);
    gradients.grad_cls = grad_cls->const_data_ptr();
    gradients.incoming = dtype_of(grad_cls->scalar_type());
  }
  if (grad_loc) {
    gradients.incoming = dtype_of(grad_loc->scalar_type());
    TORCH_CHECK_VALUE(p == 0 || tables_of(*backend, input, index, tables).error_gradient,
                      "forward was not asked for the gradient of its second part");
  }
  if (grad_loc && layout.continuous) gradients.grad_sort = grad_loc->const_data_ptr();
  if (grad_loc && !layout.continuous) {
    grad_loc_errors = at::empty({p}, logits.options().dtype(loc_errors_dtype));
    gradients.loc_errors = array_of(*grad_loc_errors);
    gradients.grad_loc = grad_loc->const_data_ptr();
  }
  const at::Tensor workspace = workspace_of(*backend, input, logits);
  alrp::backward(*backend, input, tables_of(*backend, input, index, tables), gradients, workspace.data_ptr());
  return {grad_logits, grad_loc_errors};
}

at::Tensor count_positives(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout) {
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const Input input = input_of(logits, targets, layout, 0, 1.0, 0);
  at::Tensor status = at::empty({3}, logits.options().dtype(at::kLong));
  const auto backend = backend_of(logits);
  const at::Tensor workspace = workspace_of(*backend, input, logits);
  backend->count_positives(input, reinterpret_cast<Status*>(status.data_ptr()), workspace.data_ptr());
  return status;
}

}  // namespace alrp

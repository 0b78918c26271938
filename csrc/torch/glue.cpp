#include "glue.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>

#include <memory>
#include <numeric>

#include "../cpu/backend.h"
#include "call.h"

#ifdef ALRP_WITH_CUDA
#include <c10/cuda/CUDAStream.h>

#include "../cuda/backend.h"
#endif

namespace alrp {

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

namespace {

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

}  // namespace

Input input_of(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout, int64_t p,
               double delta, int64_t algorithm, double skew, int64_t others) {
  TORCH_CHECK_VALUE(logits.is_contiguous() && targets.is_contiguous(),
                    "logits and targets must be contiguous");
  TORCH_CHECK_VALUE(targets.device() == logits.device(), "targets must be on the device of logits");
  TORCH_CHECK_VALUE(p >= 0, "the number of positives must be >= 0, got ", p);
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

namespace {

double* doubles_of(const at::Tensor& tensor, int64_t size, const at::Tensor& logits) {
  TORCH_CHECK_VALUE(tensor.scalar_type() == at::kDouble && tensor.is_contiguous() && tensor.numel() == size &&
                        tensor.device() == logits.device(),
                    "expected ", size, " contiguous float64 on the device of logits");
  return tensor.data_ptr<double>();
}

}  // namespace

int64_t* place_of(const at::Tensor& place, int64_t p) {
  TORCH_CHECK_VALUE(place.is_contiguous() && place.numel() == p,
                    "place must be contiguous, one per positive");
  return place.mutable_data_ptr<int64_t>();
}

namespace {

// backward into tensors of the caller's.
void write_gradients(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout, double delta,
                     int64_t algorithm, double skew, int64_t others, const at::Tensor& index,
                     const at::Tensor& tables, const std::optional<at::Tensor>& grad_cls,
                     const std::optional<at::Tensor>& grad_loc, const std::optional<at::Tensor>& grad_logits,
                     const std::optional<at::Tensor>& grad_loc_errors) {
  const int64_t p = index.numel();
  const Input input = input_of(logits, targets, layout, p, delta, algorithm, skew, others);
  const auto backend = backend_of(logits);
  Gradients gradients{};
  if (grad_cls) {
    gradients.logits = array_of(*grad_logits);
    gradients.grad_cls = grad_cls->const_data_ptr();
    gradients.incoming = dtype_of(grad_cls->scalar_type());
  }
  if (grad_loc) {
    TORCH_CHECK_VALUE(p == 0 || tables_of(*backend, input, index, tables).error_gradient,
                      "forward was not asked for the gradient of its second part");
    gradients.incoming = dtype_of(grad_loc->scalar_type());
    if (layout.continuous) {
      gradients.grad_sort = grad_loc->const_data_ptr();
    } else {
      gradients.loc_errors = array_of(*grad_loc_errors);
      gradients.grad_loc = grad_loc->const_data_ptr();
    }
  }
  const at::Tensor workspace = workspace_of(*backend, input, logits);
  alrp::backward(*backend, input, tables_of(*backend, input, index, tables), gradients, workspace.data_ptr());
}

// Walks over slices: which labels, logits and positives are theirs.
class Slices {
 public:
  Slices(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout,
         const std::vector<int64_t>& sizes)
      : logits_(logits.view({-1})),
        targets_(targets.view({-1})),
        classes_(std::max<int64_t>(1, layout.classes)),
        sizes_(sizes) {
    const int64_t total = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
    TORCH_CHECK_VALUE(total == logits.numel(), "sizes must add up to the ", logits.numel(), " logits, got ",
                      total);
    for (const int64_t size : sizes)
      TORCH_CHECK_VALUE(size >= 0 && size % classes_ == 0, "a slice must hold whole rows, got ", size);
  }

  // f(slice, its first logit, its logits, its targets) for every slice.
  template <typename F>
  void each(F&& f) const {
    int64_t begin = 0;
    for (size_t s = 0; s < sizes_.size(); ++s) {
      f(s, begin, logits_.narrow(0, begin, sizes_[s]),
        targets_.narrow(0, begin / classes_, sizes_[s] / classes_));
      begin += sizes_[s];
    }
  }

 private:
  at::Tensor logits_, targets_;
  int64_t classes_;
  const std::vector<int64_t>& sizes_;
};

// The part of a tensor that belongs to one slice, if there is a tensor.
std::optional<at::Tensor> part(const std::optional<at::Tensor>& whole, int64_t begin, int64_t size) {
  if (!whole) return std::nullopt;
  return whole->narrow(0, begin, size);
}

at::Tensor joined(const std::vector<at::Tensor>& parts, const at::TensorOptions& options) {
  return parts.empty() ? at::empty({0}, options) : at::cat(parts);
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
    const std::optional<at::Tensor>& grad_loc, at::ScalarType loc_errors_dtype, double skew, int64_t others) {
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  std::optional<at::Tensor> grad_logits, grad_loc_errors;
  if (grad_cls) grad_logits = at::empty_like(logits);
  if (grad_loc && !layout.continuous)
    grad_loc_errors = at::empty_like(index, logits.options().dtype(loc_errors_dtype));
  write_gradients(logits, targets, layout, delta, algorithm, skew, others, index, tables, grad_cls, grad_loc,
                  grad_logits, grad_loc_errors);
  return {grad_logits, grad_loc_errors};
}

SumsResult sums(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout,
                int64_t num_positives, double delta, int64_t algorithm, double skew) {
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = num_positives;
  const Input input = input_of(logits, targets, layout, p, delta, algorithm, skew);
  const auto doubles = logits.options().dtype(at::kDouble), integers = logits.options().dtype(at::kLong);
  const auto backend = backend_of(logits);
  const int64_t device = device_size(*backend, input);
  at::Tensor tables = at::empty({device + 3 * p + 1}, doubles), index = at::empty({p}, integers);
  at::Tensor status = at::empty({3}, integers), place = at::empty({p}, integers);
  at::Tensor rank_pos = at::empty({p}, doubles), n_fp = at::empty({p}, doubles);
  at::Tensor norm = skew == 1 ? n_fp : at::empty({p}, doubles);
  const at::Tensor unused = at::empty({2 * p + 2}, doubles);  // the losses, ranks and precisions
  auto* spare = unused.data_ptr<double>();
  const at::Tensor workspace = workspace_of(*backend, input, logits);
  alrp::sums(*backend, input,
             {place.data_ptr<int64_t>(), rank_pos.data_ptr<double>(), n_fp.data_ptr<double>(), nullptr},
             norm.data_ptr<double>(),
             {Dtype::kFloat64, spare, spare + 1, spare + 2, spare + 2 + p,
              tables_of(*backend, input, index, tables), reinterpret_cast<Status*>(status.data_ptr())},
             workspace.data_ptr());
  return {place, rank_pos, n_fp, norm, tables.narrow(0, device, p), index, tables, status};
}

void drive(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout, double delta,
           int64_t algorithm, double skew, const at::Tensor& index, const at::Tensor& tables,
           const at::Tensor& place, const at::Tensor& n_fp, const at::Tensor& norm, const at::Tensor& errors,
           const at::Tensor& z, double eps) {
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for launches
  const int64_t p = index.numel();
  const Input input = input_of(logits, targets, layout, p, delta, algorithm, skew);
  const auto backend = backend_of(logits);
  backend->drive(input,
                 {place_of(place, p), doubles_of(n_fp, p, logits), doubles_of(norm, p, logits),
                  doubles_of(errors, p, logits), doubles_of(z, 1, logits), eps},
                 tables_of(*backend, input, index, tables));
}

at::Tensor pair_product(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout,
                        double delta, int64_t algorithm, const at::Tensor& index, const at::Tensor& tables,
                        const at::Tensor& place, const at::Tensor& weights, bool transposed, int64_t others) {
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = index.numel();
  const Input input = input_of(logits, targets, layout, p, delta, algorithm, 1, others);
  const auto backend = backend_of(logits);
  at::Tensor out = at::empty({p}, logits.options().dtype(at::kDouble));
  backend->pair_product(input, tables_of(*backend, input, index, tables), place_of(place, p),
                        doubles_of(weights, p, logits), transposed, out.data_ptr<double>());
  return out;
}

SlicesResult forward_slices(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout,
                            const std::vector<int64_t>& sizes, const std::vector<int64_t>& counts,
                            const std::vector<int64_t>& algorithms, int64_t loss,
                            const std::optional<at::Tensor>& loc_errors, bool want_error_gradient,
                            double delta, double eps) {
  std::vector<at::Tensor> cls, loc, rank, precision, index, tables;
  int64_t first = 0;
  Slices(logits, targets, layout, sizes)
      .each([&](size_t s, int64_t, const at::Tensor& own, const at::Tensor& labels) {
        const auto [c, l, r, p, i, t, status] =
            forward(own, labels, layout, counts.at(s), loss, part(loc_errors, first, counts[s]),
                    want_error_gradient, delta, eps, algorithms.at(s));
        cls.push_back(c.view({1})), loc.push_back(l.view({1})), rank.push_back(r), precision.push_back(p);
        index.push_back(i), tables.push_back(t);
        first += counts[s];
      });
  const auto values = logits.options().dtype(logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  return {joined(cls, values),
          joined(loc, values),
          joined(rank, values),
          joined(precision, values),
          joined(index, values.dtype(at::kLong)),
          tables};
}

std::tuple<std::optional<at::Tensor>, std::optional<at::Tensor>> backward_slices(
    const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout,
    const std::vector<int64_t>& sizes, const std::vector<int64_t>& counts,
    const std::vector<int64_t>& algorithms, double delta, const at::Tensor& index,
    const std::vector<at::Tensor>& tables, const std::optional<at::Tensor>& grad_cls,
    const std::optional<at::Tensor>& grad_loc, at::ScalarType loc_errors_dtype) {
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  std::optional<at::Tensor> grad_logits, flat, grad_loc_errors;
  if (grad_cls) {
    grad_logits = at::empty_like(logits);
    flat = grad_logits->view({-1});
  }
  if (grad_loc && !layout.continuous)
    grad_loc_errors = at::empty_like(index, logits.options().dtype(loc_errors_dtype));
  int64_t first = 0;
  Slices(logits, targets, layout, sizes)
      .each([&](size_t s, int64_t begin, const at::Tensor& own, const at::Tensor& labels) {
        write_gradients(own, labels, layout, delta, algorithms.at(s), 1, 0,
                        index.narrow(0, first, counts.at(s)), tables.at(s),
                        part(grad_cls, static_cast<int64_t>(s), 1),
                        part(grad_loc, static_cast<int64_t>(s), 1), part(flat, begin, own.numel()),
                        part(grad_loc_errors, first, counts[s]));
        first += counts[s];
      });
  return {grad_logits, grad_loc_errors};
}

at::Tensor count_slices(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout,
                        const std::vector<int64_t>& sizes) {
  std::vector<at::Tensor> status;
  Slices(logits, targets, layout, sizes)
      .each([&](size_t, int64_t, const at::Tensor& own, const at::Tensor& labels) {
        status.push_back(count_positives(own, labels, layout));
      });
  return joined(status, logits.options().dtype(at::kLong)).view({static_cast<int64_t>(sizes.size()), 3});
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

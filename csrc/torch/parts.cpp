#include "parts.h"

#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>

#include "call.h"

namespace alrp {
namespace {

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

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> find_positives(const at::Tensor& logits,
                                                                          const at::Tensor& targets,
                                                                          TargetLayout layout,
                                                                          int64_t num_positives) {
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = num_positives;
  const Input input =
      input_of(logits, targets, layout, p, 1.0, static_cast<int64_t>(Algorithm::kTiled));  // finds and sorts
  const auto integers = logits.options().dtype(at::kLong);
  at::Tensor place = at::empty({p}, integers), index = at::empty({p}, integers);
  at::Tensor score = at::empty({p}, logits.options().dtype(at::kDouble)), status = at::empty({3}, integers);
  const auto backend = backend_of(logits);
  const at::Tensor workspace = workspace_of(*backend, input, logits);
  Tables tables{};
  tables.index = index.data_ptr<int64_t>();
  tables.score = score.data_ptr<double>();
  backend->positives(input, tables, place.data_ptr<int64_t>(), status_of(status, logits),
                     workspace.data_ptr());
  return {place, score, index, status};
}

std::tuple<at::Tensor, at::Tensor> count_part(const at::Tensor& logits, const at::Tensor& targets,
                                              TargetLayout layout, int64_t others, double delta,
                                              int64_t algorithm, double skew, bool want_error_gradient,
                                              const at::Tensor& index, const at::Tensor& score,
                                              const at::Tensor& status) {
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = index.numel();
  const Input input = input_of(logits, targets, layout, p, delta, algorithm, skew, others);
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

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> forward_from_parts(
    const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout, int64_t others, int64_t loss,
    const std::optional<at::Tensor>& values, double delta, double eps, int64_t algorithm,
    const at::Tensor& place, const at::Tensor& index, const at::Tensor& tables, const at::Tensor& sum,
    const at::Tensor& status) {
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = index.numel();
  const Input input = input_of(logits, targets, layout, p, delta, algorithm, 1, others);
  Spec spec{static_cast<Loss>(loss), eps, {nullptr, Dtype::kFloat32}, {nullptr, Dtype::kFloat32}};
  if (values) {
    TORCH_CHECK_VALUE(values->is_contiguous() && values->numel() == p && values->device() == logits.device(),
                      "values must be contiguous, one per positive, on the device of logits");
    (layout.continuous ? spec.labels : spec.loc_errors) = array_of(*values);
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

std::tuple<at::Tensor, at::Tensor, at::Tensor> sums_from_parts(
    const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout, int64_t others, double delta,
    int64_t algorithm, double skew, const at::Tensor& place, const at::Tensor& index,
    const at::Tensor& tables, const at::Tensor& sum, const at::Tensor& status) {
  const c10::OptionalDeviceGuard guard(at::device_of(logits));  // for allocations and launches
  const int64_t p = index.numel();
  const Input input = input_of(logits, targets, layout, p, delta, algorithm, skew, others);
  const auto doubles = logits.options().dtype(at::kDouble);
  at::Tensor rank_pos = at::empty({p}, doubles), n_fp = at::empty({p}, doubles);
  const at::Tensor norm = skew == 1 ? n_fp : sum.narrow(0, p, p);
  const at::Tensor unused = at::empty({2 * p + 2}, doubles);  // the losses, ranks and precisions
  auto* spare = unused.data_ptr<double>();
  const auto backend = backend_of(logits);
  alrp::sums_from_parts(*backend, input,
                        {place_of(place, p), rank_pos.data_ptr<double>(), n_fp.data_ptr<double>(), nullptr},
                        sum_of(sum, input, logits),
                        {Dtype::kFloat64, spare, spare + 1, spare + 2, spare + 2 + p,
                         tables_of(*backend, input, index, tables), status_of(status, logits)});
  return {rank_pos, n_fp, norm};
}

}  // namespace alrp

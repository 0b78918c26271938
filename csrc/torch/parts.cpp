#include "parts.h"

#include "tensors.h"

namespace alrp {
namespace {

at::ScalarType part_dtype(const Input& input) {
  return input.algorithm == Algorithm::kSorted && input.p > 0 ? at::kLong : at::kDouble;
}

const void* sum_of(const DeviceScope& device, const at::Tensor& sum, const Input& input) {
  TORCH_CHECK_VALUE(sum.scalar_type() == part_dtype(input) && sum.numel() == part_size(input),
                    "sum must be as count_part leaves it, ", part_size(input), " elements");
  return device.read("sum", sum);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> find_positives(
    const std::vector<at::Tensor>& logits, const at::Tensor& targets, const Call& call, int64_t p) {
  Views views(logits);
  const DeviceScope device(views.first(), "find_positives");
  Input input = input_of(device, views, targets, call, p);
  input.algorithm = Algorithm::kTiled;  // finds and sorts, and makes no tables
  const at::Tensor place = device.allocate("place", {p}, at::kLong),
                   index = device.allocate("index", {p}, at::kLong),
                   score = device.allocate("score", {p}, at::kDouble),
                   status = device.allocate("status", {kStatusWords}, at::kLong);
  const auto [workspace, work] = workspace_of(device, input, Loss::kGiven);
  Tables tables{};
  tables.index = index.mutable_data_ptr<int64_t>();
  tables.score = score.mutable_data_ptr<double>();
  device.backend().find(input, tables, place.mutable_data_ptr<int64_t>(),
                        static_cast<Status*>(status.mutable_data_ptr()), work.scratch);
  return {place, score, index, status};
}

std::tuple<at::Tensor, at::Tensor> count_part(const std::vector<at::Tensor>& logits,
                                              const at::Tensor& targets, const Call& call,
                                              const at::Tensor& index, const at::Tensor& score,
                                              const at::Tensor& status) {
  const int64_t p = index.numel();
  Views views(logits);
  const DeviceScope device(views.first(), "count_part");
  Backend& backend = device.backend();
  const Input input = input_of(device, views, targets, call, p);
  const auto [state, own] =
      allocated(device, "state", [&](Arena& memory) { return take_state(memory, backend, input); });
  const auto [workspace, work] = workspace_of(device, input, Loss::kGiven);
  const at::Tensor part = device.allocate("part", {part_size(input)}, part_dtype(input));
  view_of(state, own.status, {kStatusWords}, at::kLong).copy_(status);
  view_of(state, own.tables.index, {p}, at::kLong).copy_(index);
  view_of(state, own.tables.score, {p}, at::kDouble).copy_(score);
  backend.count_part(input, own.tables, part.mutable_data_ptr(), own.status, work.scratch);
  return {state, part};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> loss_from_parts(
    const std::vector<at::Tensor>& logits, const at::Tensor& targets, const Call& call, int64_t loss,
    double eps, const std::optional<at::Tensor>& values, const at::Tensor& place, const at::Tensor& state,
    const at::Tensor& sum) {
  const int64_t p = place.numel();
  Views views(logits);
  const DeviceScope device(views.first(), "loss_from_parts");
  Backend& backend = device.backend();
  const Input input = input_of(device, views, targets, call, p);
  TORCH_CHECK_VALUE(!values || values->numel() == p, "values must be one per positive");
  const Results results(device, {}, p, values_dtype(views.first().scalar_type()));
  auto [workspace, work] = workspace_of(device, input, static_cast<Loss>(loss));
  work.sums.place = places(device, place, p);
  work.sort.label_at = work.sums.place;
  const State own = state_of(device, input, state);
  const Spec spec = spec_of(loss, eps, input, values ? array_of(device, "values", *values) : Array{});
  backend.count_from_parts(input, spec, own.tables, sum_of(device, sum, input), work.sums, own.status);
  backend.finish(input, spec, work.sums, work.sort, results.of_slice(0, 0, own));
  return {results.cls, results.loc, results.ranks};
}

std::tuple<at::Tensor, at::Tensor> sums_from_parts(const std::vector<at::Tensor>& logits,
                                                   const at::Tensor& targets, const Call& call,
                                                   const at::Tensor& place, const at::Tensor& state,
                                                   const at::Tensor& sum) {
  const int64_t p = place.numel();
  Views views(logits);
  const DeviceScope device(views.first(), "sums_from_parts");
  const Input input = input_of(device, views, targets, call, p);
  const State own = state_of(device, input, state);
  const GivenSums given(device, input, places(device, place, p), own);
  device.backend().count_from_parts(input, kGivenErrors, own.tables, sum_of(device, sum, input), given.rows,
                                    own.status);
  device.backend().finish(input, kGivenErrors, given.rows, {}, given.output);
  return {given.completed(), given.poison()};
}

}  // namespace alrp

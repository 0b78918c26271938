#include "tensors.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>

namespace alrp {
namespace {

int64_t bytes_of(Dtype dtype) { return dtype == Dtype::kFloat64 ? 8 : dtype == Dtype::kFloat32 ? 4 : 2; }

Labels labels_of(const DeviceScope& device, const at::Tensor& targets, const Call& call) {
  const at::ScalarType type = targets.scalar_type();
  Labels labels{device.read("targets", targets),
                static_cast<int32_t>(targets.element_size()),
                /*is_signed=*/1,
                /*least=*/1,
                /*span=*/0,
                /*infinity=*/0,
                call.classes,
                call.background};
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
  if (call.continuous) {
    TORCH_CHECK_TYPE(labels.infinity, "targets: continuous labels must be floating, got ", type);
    labels.least = 1;
    labels.span = labels.infinity - 2;  // to the greatest finite number
  }
  return labels;
}

}  // namespace

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

at::ScalarType values_dtype(at::ScalarType logits) {
  return logits == at::kDouble ? at::kDouble : at::kFloat;
}

// Where the sorted form needs its wide positions (csrc/positions.h), it costs as much as the tiled one with some
// hundred positives; else it is the faster one with any number.
int64_t chosen(int64_t algorithm, at::ScalarType dtype, double delta, int64_t p) {
  if (algorithm >= 0) return algorithm;
  const bool wide = dtype == at::kDouble || delta == 0;
  return static_cast<int64_t>(wide && p <= 160 ? Algorithm::kTiled : Algorithm::kSorted);
}

Array array_of(const DeviceScope& device, const char* name, const at::Tensor& tensor) {
  return {const_cast<void*>(device.read(name, tensor)), dtype_of(tensor.scalar_type())};
}

Array advanced(Array array, int64_t elements) {
  if (array.data) array.data = static_cast<char*>(array.data) + elements * bytes_of(array.dtype);
  return array;
}

Input input_of(const DeviceScope& device, Views& logits, const at::Tensor& targets, const Call& call,
               int64_t p) {
  return slices_of(device, logits, targets, call, p)[0].input;
}

std::vector<Slice> slices_of(const DeviceScope& device, Views& logits, const at::Tensor& targets,
                             const Call& call, int64_t p) {
  TORCH_CHECK_VALUE(p >= 0, "the number of positives must be >= 0, got ", p);
  TORCH_CHECK_VALUE(call.algorithm >= -1 && call.algorithm <= 1, "algorithm must be -1, 0 or 1, got ",
                    call.algorithm);
  const int64_t n = logits.numel(), classes = std::max<int64_t>(1, call.classes);
  TORCH_CHECK_VALUE(n == 0 || targets.numel() * classes == n, "targets do not fit logits");
  const at::ScalarType dtype = logits.first().scalar_type();
  Input input{{},
              n,
              labels_of(device, targets, call),
              p,
              call.delta,
              static_cast<Algorithm>(chosen(call.algorithm, dtype, call.delta, p)),
              call.skew,
              number(call.others),
              call.wants_error_gradient};
  if (call.sizes.empty()) {
    input.logits = logits.slices(device, {n}, classes)[0];
    return {{input, 0, 0}};
  }
  std::vector<int64_t> sizes;
  for (const c10::SymInt& size : call.sizes) sizes.push_back(number(size));
  const std::vector<Logits> parts = logits.slices(device, sizes, classes);
  std::vector<Slice> slices;
  int64_t logit = 0, positive = 0;
  const auto* const labels = static_cast<const char*>(input.labels.data);
  for (size_t s = 0; s < sizes.size(); ++s) {
    TORCH_CHECK_VALUE(sizes[s] % classes == 0, "a slice must hold whole rows, got ", sizes[s]);
    input.logits = parts[s];
    input.n = sizes[s];
    input.p = number(call.counts.at(s));
    TORCH_CHECK_VALUE(input.p >= 0, "counts must be >= 0, got ", input.p);
    input.algorithm = static_cast<Algorithm>(chosen(call.algorithm, dtype, call.delta, input.p));
    input.labels.data = labels + logit / classes * input.labels.bytes;
    slices.push_back({input, logit, positive});
    logit += input.n, positive += input.p;
  }
  return slices;
}

Spec spec_of(int64_t loss, double eps, const Input& input, Array values) {
  const auto kind = static_cast<Loss>(loss);
  const bool has_errors = kind == Loss::kALRP || kind == Loss::kALRPHard,
             has_labels = kind == Loss::kRankSort;
  TORCH_CHECK_VALUE(!has_errors || values.data || input.p == 0, "loc_errors must be given for aLRP");
  const Array none{nullptr, Dtype::kFloat32};
  return {kind, eps, has_errors ? values : none, has_labels ? values : none,
          step(make_step(input.delta), 0, 0)};
}

Results::Results(const DeviceScope& device, at::IntArrayRef scalars, int64_t p, at::ScalarType dtype)
    : cls(device.allocate("cls", scalars, dtype)),
      loc(device.allocate("loc", scalars, dtype)),
      ranks(device.allocate_rows("ranks", 2, p, dtype)) {}

Output Results::of_slice(int64_t s, int64_t positive, const State& state) const {
  const Dtype dtype = dtype_of(cls.scalar_type());
  const auto at = [dtype](const at::Tensor& tensor, int64_t element) {
    return advanced({tensor.mutable_data_ptr(), dtype}, element).data;
  };
  return {dtype,        at(cls, s),  at(loc, s), at(ranks, positive), at(ranks, ranks.stride(0) + positive),
          state.tables, state.status};
}

GivenSums::GivenSums(const DeviceScope& device, const Input& input, int64_t* place, const State& state)
    : sums(device.allocate_rows("sums", 4, input.p, at::kDouble)),
      unused(device.allocate("unused", {2 * input.p + 2}, at::kDouble)) {
  auto *first = sums.mutable_data_ptr<double>(), *spare = unused.mutable_data_ptr<double>();
  const int64_t row = sums.stride(0);
  rows = {place, first + row, first + 2 * row, nullptr, input.skew == 1 ? nullptr : first + 3 * row};
  output = {Dtype::kFloat64, spare, spare + 1, spare + 2, spare + 2 + input.p, state.tables, state.status};
}

at::Tensor GivenSums::completed() const {
  sums[0].copy_(view_of(sums, output.tables.score, {sums.size(1)}, at::kDouble));
  if (!rows.norm) sums[3].copy_(sums[2]);
  return sums;
}

at::Tensor GivenSums::poison() const { return view_of(sums, output.tables.poison, {}, at::kDouble).clone(); }

at::Tensor view_of(const at::Tensor& like, void* data, at::IntArrayRef sizes, at::ScalarType dtype) {
  return at::from_blob(data, sizes, like.options().dtype(dtype));
}

std::pair<at::Tensor, Workspace> workspace_of(const DeviceScope& device, const Input& input, Loss loss) {
  return allocated(device, "workspace",
                   [&](Arena& memory) { return take_workspace(memory, device.backend(), input, loss); });
}

std::vector<State> take_states(Arena& memory, const Backend& backend, const std::vector<Slice>& slices) {
  std::vector<State> states;
  for (const Slice& slice : slices) states.push_back(take_state(memory, backend, slice.input));
  return states;
}

std::vector<State> states_of(const DeviceScope& device, const std::vector<Slice>& slices,
                             const at::Tensor& state) {
  Arena layout;
  take_states(layout, device.backend(), slices);
  Arena memory(device.write("state", state, layout));
  return take_states(memory, device.backend(), slices);
}

State state_of(const DeviceScope& device, const Input& input, const at::Tensor& state) {
  return states_of(device, {{input, 0, 0}}, state)[0];
}

int64_t* places(const DeviceScope& device, const at::Tensor& place, int64_t p) {
  TORCH_CHECK_VALUE(place.scalar_type() == at::kLong && place.numel() == p, "place must hold ", p, " int64");
  return static_cast<int64_t*>(const_cast<void*>(device.read("place", place)));
}

}  // namespace alrp

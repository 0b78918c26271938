// Tensors in terms of ../ranking.h, with the checks that keep memory safe.
#pragma once

#include "call.h"
#include "device.h"
#include "views.h"

namespace alrp {

Dtype dtype_of(at::ScalarType type);

// Of the losses, ranks and precisions of such logits.
at::ScalarType values_dtype(at::ScalarType logits);

// The algorithm, or for -1 the faster one with p positives.
int64_t chosen(int64_t algorithm, at::ScalarType dtype, double delta, int64_t p);

Array array_of(const DeviceScope& device, const char* name, const at::Tensor& tensor);

// A ranking of its own among the logits: all of them, or one of the call's slices.
struct Slice {
  Input input;
  int64_t label, positive;  // its first ones
};

// Of a call without slices.
Input input_of(const DeviceScope& device, Views& logits, const at::Tensor& targets, const Call& call,
               int64_t p);
std::vector<Slice> slices_of(const DeviceScope& device, Views& logits, const at::Tensor& targets,
                             const Call& call, int64_t p);

// `elements` further on; null stays null.
Array advanced(Array array, int64_t elements);

// Which loss. `values`: loc_errors of aLRP, continuous labels of Rank & Sort, null data for the others.
Spec spec_of(int64_t loss, double eps, const Input& input, Array values);

// What a loss returns.
struct Results {
  at::Tensor cls, loc, ranks;

  // `scalars`: the shape of cls and loc. ranks (2, p): rank and precision.
  Results(const DeviceScope& device, at::IntArrayRef scalars, int64_t p, at::ScalarType dtype);

  // Where slice number s writes.
  Output of_slice(int64_t s, int64_t positive, const State& state) const;
};

// The sums of a loss of the caller's own: (4, p) float64, score, rank+, N_FP and the norm, which is N_FP for a skew of 1.
struct GivenSums {
  at::Tensor sums, unused;  // for losses, ranks and precisions
  Sums rows;
  Output output;

  GivenSums(const DeviceScope& device, const Input& input, int64_t* place, const State& state);

  // After finish: the sums, with the scores of the state among them, and its poison.
  at::Tensor completed() const;
  at::Tensor poison() const;
};

// Of a Status as a tensor of int64.
constexpr int64_t kStatusWords = sizeof(Status) / sizeof(int64_t);

constexpr Spec kGivenErrors{Loss::kGiven, 0, {nullptr, Dtype::kFloat32}, {nullptr, Dtype::kFloat32}};

// A part of a state, as a tensor on its device.
at::Tensor view_of(const at::Tensor& like, void* data, at::IntArrayRef sizes, at::ScalarType dtype);

// Memory, and what take(arena) puts there: it runs twice, first to measure.
template <typename Take>
auto allocated(const DeviceScope& device, const char* name, const Take& take) {
  Arena layout;
  take(layout);
  at::Tensor memory = device.allocate(name, layout);
  Arena arena(memory.mutable_data_ptr());
  return std::pair(std::move(memory), take(arena));
}

std::pair<at::Tensor, Workspace> workspace_of(const DeviceScope& device, const Input& input, Loss loss);

std::vector<State> take_states(Arena& memory, const Backend& backend, const std::vector<Slice>& slices);

// Those of a forward pass that returned `state`; and that of one ranking.
std::vector<State> states_of(const DeviceScope& device, const std::vector<Slice>& slices,
                             const at::Tensor& state);
State state_of(const DeviceScope& device, const Input& input, const at::Tensor& state);

// The flat order of p positives.
int64_t* places(const DeviceScope& device, const at::Tensor& place, int64_t p);

}  // namespace alrp

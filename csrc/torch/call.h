// A call of an operator: what its schema names one by one.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/SymInt.h>

#include <optional>
#include <string>
#include <vector>

namespace alrp {

using OptionalTensor = std::optional<at::Tensor>;

// All but the tensors. Autograd saves it once for backward.
struct Call {
  int64_t classes, background;  // how targets label logits; see Labels
  bool continuous;              // a positive's label is any finite number above 0, not 1
  double delta = 1;
  int64_t algorithm = 0;  // of Algorithm, or -1 for the faster one
  double skew = 1;
  // The logits and positives of slices that follow one another, each ranked by itself; empty where all is one ranking.
  std::vector<c10::SymInt> sizes = {}, counts = {};
  c10::SymInt others = 0;  // logits of other processes; see Input
  bool wants_error_gradient = false;
  c10::SymInt positives = 0;  // once known
};

inline int64_t number(const c10::SymInt& symbol) { return symbol.guard_int(__FILE__, __LINE__); }

// The labels of all logits, in the order of the flat index; with slices, those of the first slice come first. A list in
// schemas, and one tensor: labels are few beside logits.
inline const at::Tensor& only(at::TensorList targets) {
  TORCH_CHECK_VALUE(targets.size() == 1, "targets must be a list of one tensor, got ", targets.size());
  return targets[0];
}

// The torch.library that operators are in. The tests compile these files under another name beside the extension.
#ifndef ALRP_LIBRARY
#define ALRP_LIBRARY alrp_cuda
#endif
// torch's macros paste what they are given: these let the name expand first.
#define ALRP_TEXT_OF(name) #name
#define ALRP_TEXT(name) ALRP_TEXT_OF(name)
#define ALRP_LIBRARY_SCHEMAS(name, m) TORCH_LIBRARY(name, m)
#define ALRP_LIBRARY_IMPL(name, key, m) TORCH_LIBRARY_IMPL(name, key, m)

// The operator of that name, which `function` implements. It runs below autograd or above it as the thread's guards say, and
// tracers see the call.
template <auto* function>
const auto& op(const char* name) {
  using Signature = std::remove_pointer_t<decltype(function)>;
  static const std::string full = std::string(ALRP_TEXT(ALRP_LIBRARY) "::") + name;
  static const auto handle =
      c10::Dispatcher::singleton().findSchemaOrThrow(full.c_str(), "").template typed<Signature>();
  return handle;
}

}  // namespace alrp

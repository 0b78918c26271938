// Tensors as the ranking code takes them: what the files of csrc/torch share.
#pragma once

#include <memory>

#include "../ranking.h"
#include "glue.h"

namespace alrp {

Dtype dtype_of(at::ScalarType type);
Array array_of(const at::Tensor& tensor);

// Checks what keeps memory safe.
Input input_of(const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout, int64_t p,
               double delta, int64_t algorithm, double skew = 1, int64_t others = 0);

// That of the logits' device, on its current stream.
std::unique_ptr<Backend> backend_of(const at::Tensor& logits);

at::Tensor workspace_of(const Backend& backend, const Input& input, const at::Tensor& logits);

// Doubles that hold the backend's own tables; they come first, for alignment.
int64_t device_size(const Backend& backend, const Input& input);

// `tables` as ForwardResult has it.
Tables tables_of(const Backend& backend, const Input& input, const at::Tensor& index,
                 const at::Tensor& tables);

// place, P contiguous int64.
int64_t* place_of(const at::Tensor& place, int64_t p);

}  // namespace alrp

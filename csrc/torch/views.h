// The logits of a call, one tensor or a list of views, in terms of ../maps.h.
#pragma once

#include <vector>

#include "device.h"

namespace alrp {

class Views {
 public:
  // What is no dense memory is copied.
  explicit Views(at::TensorList logits);

  const at::Tensor& first() const { return tensors_[0]; }
  int64_t numel() const { return numel_; }

  // Makes the gradients, which lie in memory as the logits do.
  std::vector<at::Tensor> allocate_gradients(const DeviceScope& device);

  // Slices that follow one another, of so many logits each, in rows of `classes`: any of one contiguous tensor; else equal
  // shares of the first dimension of each. What they point to lives until the next call, or as long as this object.
  std::vector<Logits> slices(const DeviceScope& device, const std::vector<int64_t>& sizes, int64_t classes);

 private:
  std::vector<at::Tensor> tensors_;
  std::vector<char*> gradients_;  // none, or one a tensor
  int64_t numel_ = 0;
  at::Tensor table_;
};

}  // namespace alrp

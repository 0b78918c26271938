// Where a call runs: the backend of its logits' device, and that device's memory.
//
// Between the torch operators and this header nothing knows devices. The tests compile their own device.cpp in place of
// device.cpp, which brings the emulated device and watches every buffer.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "../ranking.h"

namespace alrp {

class DeviceScope {
 public:
  // Makes the device of `logits` the current one until the end of the scope. `call` is a name for people.
  DeviceScope(const at::Tensor& logits, const char* call);
  ~DeviceScope();

  Backend& backend() const;

  // A look at a value makes the host wait.
  bool is_asynchronous() const;

  // Memory that holds anything; `name` is for people. Rows may be apart.
  at::Tensor allocate(const char* name, at::IntArrayRef sizes, at::ScalarType dtype) const;
  at::Tensor allocate_rows(const char* name, int64_t rows, int64_t columns, at::ScalarType dtype) const;
  at::Tensor allocate(const char* name, const Arena& layout) const;

  // The data of a contiguous tensor of this device, for kernels to read; or to write too, of one with such a layout.
  const void* read(const char* name, const at::Tensor& tensor) const;
  void* write(const char* name, const at::Tensor& tensor, const Arena& layout) const;

 private:
  struct Place;
  std::unique_ptr<Place> place_;
};

}  // namespace alrp

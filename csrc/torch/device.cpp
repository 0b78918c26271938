#include "device.h"

#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>

#include "../cpu/backend.h"

#ifdef ALRP_WITH_CUDA
#include <c10/cuda/CUDAStream.h>

#include "../cuda/backend.h"
#endif

namespace alrp {
namespace {

std::unique_ptr<Backend> backend_of(const at::Device& device) {
#ifdef ALRP_WITH_CUDA
  if (device.is_cuda())
    return std::make_unique<cuda::CudaBackend>(c10::cuda::getCurrentCUDAStream(device.index()).stream());
#endif
  TORCH_CHECK_VALUE(device.is_cpu(), "alrp_cuda was built without a backend for device ", device);
  return std::make_unique<cpu::CpuBackend>();
}

}  // namespace

struct DeviceScope::Place {
  at::Device device;
  c10::OptionalDeviceGuard guard;
  std::unique_ptr<Backend> backend;
};

DeviceScope::DeviceScope(const at::Tensor& logits, const char*)
    : place_(new Place{logits.device(), c10::OptionalDeviceGuard(at::device_of(logits)),
                       backend_of(logits.device())}) {}
DeviceScope::~DeviceScope() = default;

Backend& DeviceScope::backend() const { return *place_->backend; }

bool DeviceScope::is_asynchronous() const { return !place_->device.is_cpu(); }

at::Tensor DeviceScope::allocate(const char*, at::IntArrayRef sizes, at::ScalarType dtype) const {
  return at::empty(sizes, at::TensorOptions(place_->device).dtype(dtype));
}

at::Tensor DeviceScope::allocate_rows(const char* name, int64_t rows, int64_t columns,
                                      at::ScalarType dtype) const {
  return allocate(name, {rows, columns}, dtype);
}

at::Tensor DeviceScope::allocate(const char* name, const Arena& layout) const {
  return allocate(name, {static_cast<int64_t>(layout.bytes())}, at::kByte);
}

const void* DeviceScope::read(const char* name, const at::Tensor& tensor) const {
  TORCH_CHECK_VALUE(tensor.is_contiguous() && tensor.device() == place_->device, name,
                    " must be contiguous, on the device of logits");
  return tensor.const_data_ptr();
}

void* DeviceScope::write(const char* name, const at::Tensor& tensor, const Arena& layout) const {
  TORCH_CHECK_VALUE(tensor.nbytes() == layout.bytes(), name, " must be that which the forward pass returned");
  return const_cast<void*>(read(name, tensor));
}

}  // namespace alrp

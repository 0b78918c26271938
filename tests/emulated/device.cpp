// csrc/torch/device.h for the tests: the device is an object of Python, which sees every call and every buffer.
//
// `begin(call)` of the device returns what stands for the call: its `backend` is the address of a Backend, or 0 for the CPU's;
// `register(address, bytes, writable, name)` and `end()` are called in between.
#include "torch/device.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <sys/mman.h>
#include <torch/csrc/utils/pybind.h>

#include <cstring>
#include <exception>

#include "cpu/backend.h"
#include "torch/tensors.h"

namespace py = pybind11;

namespace alrp {
namespace {

constexpr size_t kHuge =
    size_t{64} << 20;         // of which only the pages that a kernel touches should take memory
constexpr int64_t kGap = 64;  // elements between rows

py::object& device() {
  static auto* object = new py::object();
  return *object;
}

at::Tensor fresh(at::IntArrayRef sizes, at::ScalarType dtype) {
  const auto options = at::TensorOptions().dtype(dtype);
  size_t bytes = at::elementSize(dtype);
  for (const int64_t size : sizes) bytes *= static_cast<size_t>(size);
  if (bytes < kHuge) {
    at::Tensor tensor = at::empty(sizes, options);
    if (bytes) std::memset(tensor.mutable_data_ptr(), 0xa5, bytes);  // what a kernel does not write shows
    return tensor;
  }
  void* data =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  TORCH_CHECK(data != MAP_FAILED, "no address space for ", bytes, " bytes");
  return at::from_blob(data, sizes, [bytes](void* p) { munmap(p, bytes); }, options);
}

}  // namespace

struct DeviceScope::Place {
  py::object call;
  cpu::CpuBackend cpu;
  Backend* backend = &cpu;

  void watch(const std::string& name, const void* data, size_t bytes, bool writable) const {
    if (bytes == 0) return;
    const py::gil_scoped_acquire gil;
    call.attr("register")(reinterpret_cast<uintptr_t>(data), bytes, writable, name);
  }

  void watch(const std::string& name, const void* data, const Arena& layout) const {
    int number = 0;
    for (const auto& [offset, bytes] : layout.arrays())
      watch(name + " " + std::to_string(number++), static_cast<const char*>(data) + offset, bytes, true);
  }
};

DeviceScope::DeviceScope(const at::Tensor&, const char* call) : place_(new Place) {
  const py::gil_scoped_acquire gil;
  place_->call = device().attr("begin")(call);
  if (const auto address = place_->call.attr("backend").cast<uintptr_t>())
    place_->backend = reinterpret_cast<Backend*>(address);
}

DeviceScope::~DeviceScope() {
  const py::gil_scoped_acquire gil;
  try {
    place_->call.attr("end")();
  } catch (py::error_already_set& error) {
    // What is wrong fails a launch, which throws; nothing else may be left to be reported here.
    if (!std::uncaught_exceptions()) {
      std::fprintf(stderr, "%s\n", error.what());
      std::terminate();
    }
  }
  place_->call = {};
}

Backend& DeviceScope::backend() const { return *place_->backend; }

bool DeviceScope::is_asynchronous() const { return true; }

at::Tensor DeviceScope::allocate(const char* name, at::IntArrayRef sizes, at::ScalarType dtype) const {
  at::Tensor tensor = fresh(sizes, dtype);
  place_->watch(name, tensor.const_data_ptr(), tensor.nbytes(), true);
  return tensor;
}

at::Tensor DeviceScope::allocate_rows(const char* name, int64_t rows, int64_t columns,
                                      at::ScalarType dtype) const {
  at::Tensor apart = fresh({rows, columns + kGap}, dtype).narrow(1, 0, columns);
  for (int64_t r = 0; r < rows; ++r) place_->watch(name, apart[r].const_data_ptr(), apart[r].nbytes(), true);
  return apart;
}

at::Tensor DeviceScope::allocate(const char* name, const Arena& layout) const {
  at::Tensor tensor = fresh({static_cast<int64_t>(layout.bytes())}, at::kByte);
  place_->watch(name, tensor.const_data_ptr(), layout);
  return tensor;
}

const void* DeviceScope::read(const char* name, const at::Tensor& tensor) const {
  TORCH_CHECK_VALUE(tensor.is_contiguous(), name, " must be contiguous, on the device of logits");
  place_->watch(name, tensor.const_data_ptr(), tensor.nbytes(), false);
  return tensor.const_data_ptr();
}

void* DeviceScope::write(const char* name, const at::Tensor& tensor, const Arena& layout) const {
  TORCH_CHECK_VALUE(tensor.nbytes() == layout.bytes(), name, " must be that which the forward pass returned");
  place_->watch(name, tensor.const_data_ptr(), layout);
  return tensor.mutable_data_ptr();
}

}  // namespace alrp

PYBIND11_MODULE(alrp_emulated_device, m) {
  m.def("use", [](py::object device) { alrp::device() = std::move(device); });
  // What kernels are given of a call on all of these logits, for who launches one by itself.
  m.def("input_bytes", [](const at::Tensor& logits, const at::Tensor& targets, int64_t p) {
    const alrp::DeviceScope device(logits, "input");
    alrp::Views views(logits);
    const alrp::Input input = alrp::input_of(device, views, targets, {0, 0, false}, p);
    return py::bytes(reinterpret_cast<const char*>(&input), sizeof(input));
  });
  // Where the arrays of the state of p positives by the tiled algorithm lie, which has no tables of its own: (offset, bytes).
  m.def("tiled_state", [](int64_t p) {
    alrp::Input input{};
    input.p = p;
    alrp::Arena layout;
    alrp::take_state(layout, alrp::cpu::CpuBackend(), input);
    std::vector<std::pair<size_t, size_t>> arrays;
    for (const auto& [offset, bytes] : layout.arrays()) arrays.emplace_back(offset, bytes);
    return arrays;
  });
}

// The module alrp_cuda._C: loading it registers the operators; it takes kernels written in Python, and tells the
// messages and build facts that Python needs.
#include <torch/csrc/utils/pybind.h>

#include "torch/kernels.h"
#include "torch/native.h"
#include "torch/status.h"

namespace py = pybind11;

#ifndef ALRP_ARCHS
#define ALRP_ARCHS ""
#endif

namespace alrp {
namespace {

// Kernels whose methods are those of a Python subclass.
class PythonKernels final : public Kernels {
 public:
  using Kernels::Kernels;

  at::Tensor count_positives(const Problem& problem) const override {
    PYBIND11_OVERRIDE_PURE(at::Tensor, Kernels, count_positives, problem);
  }

  ForwardResult forward(const Problem& problem, int64_t num_positives, int64_t loss,
                        const std::optional<at::Tensor>& loc_errors, bool want_error_gradient,
                        double eps) const override {
    PYBIND11_OVERRIDE_PURE(ForwardResult, Kernels, forward, problem, num_positives, loss, loc_errors,
                           want_error_gradient, eps);
  }

  void backward(const Problem& problem, const at::Tensor& index, const at::Tensor& tables,
                const std::optional<at::Tensor>& grad_cls, const std::optional<at::Tensor>& grad_loc,
                const std::optional<at::Tensor>& grad_logits,
                const std::optional<at::Tensor>& grad_loc_errors) const override {
    PYBIND11_OVERRIDE_PURE(void, Kernels, backward, problem, index, tables, grad_cls, grad_loc, grad_logits,
                           grad_loc_errors);
  }

  SumsResult sums(const Problem& problem, int64_t num_positives) const override {
    PYBIND11_OVERRIDE_PURE(SumsResult, Kernels, sums, problem, num_positives);
  }

  void drive(const Problem& problem, const at::Tensor& index, const at::Tensor& tables,
             const at::Tensor& place, const at::Tensor& sums, const at::Tensor& errors, const at::Tensor& z,
             double eps) const override {
    PYBIND11_OVERRIDE_PURE(void, Kernels, drive, problem, index, tables, place, sums, errors, z, eps);
  }

  at::Tensor pair_product(const Problem& problem, const at::Tensor& index, const at::Tensor& tables,
                          const at::Tensor& place, const at::Tensor& weights,
                          bool transposed) const override {
    PYBIND11_OVERRIDE_PURE(at::Tensor, Kernels, pair_product, problem, index, tables, place, weights,
                           transposed);
  }
};

}  // namespace
}  // namespace alrp

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.doc() = "Kernels of alrp_cuda";
#ifdef ALRP_WITH_CUDA
  m.attr("built_backends") = py::make_tuple("cpu", "cuda");
#else
  m.attr("built_backends") = py::make_tuple("cpu");
#endif
  m.attr("cuda_architectures") = ALRP_ARCHS;

  py::class_<alrp::TargetLayout>(m, "TargetLayout")
      .def(py::init<int64_t, int64_t, bool>(), py::arg("classes"), py::arg("background"),
           py::arg("continuous") = false)
      .def_readonly("classes", &alrp::TargetLayout::classes)
      .def_readonly("background", &alrp::TargetLayout::background)
      .def_readonly("continuous", &alrp::TargetLayout::continuous);
  py::class_<alrp::Problem>(m, "Problem")
      .def(py::init<at::Tensor, at::Tensor, alrp::TargetLayout, double, int64_t, double>(), py::arg("logits"),
           py::arg("targets"), py::arg("layout"), py::arg("delta"), py::arg("algorithm"),
           py::arg("skew") = 1.0)
      .def_readonly("logits", &alrp::Problem::logits)
      .def_readonly("targets", &alrp::Problem::targets)
      .def_readonly("layout", &alrp::Problem::layout)
      .def_readonly("delta", &alrp::Problem::delta)
      .def_readonly("algorithm", &alrp::Problem::algorithm)
      .def_readonly("skew", &alrp::Problem::skew);
  py::class_<alrp::Kernels, alrp::PythonKernels>(m, "Kernels")
      .def(py::init<bool>(), py::arg("is_asynchronous"));
  py::class_<alrp::NativeKernels, alrp::Kernels>(m, "NativeKernels")
      .def(py::init<bool>(), py::arg("is_asynchronous"));
  m.def("register_kernels", &alrp::register_kernels, py::arg("backend"), py::arg("kernels"));
  m.def("set_debug", &alrp::set_debug, py::arg("enabled"));
  m.def("label_message", &alrp::label_message, py::arg("layout"));
  m.def("positives_message", &alrp::positives_message, py::arg("argument"), py::arg("told"),
        py::arg("found"));
}

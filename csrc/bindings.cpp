// The module alrp_cuda._C: loading it registers the operators; it takes kernels written in Python, and has what
// Python needs: the operator that every step calls, messages, build facts, and the steps of a ranking over several processes.
#include <torch/csrc/utils/pybind.h>

#include "cpu/level.h"
#include "torch/kernels.h"
#include "torch/native.h"
#include "torch/operators.h"
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

  PositivesResult find_positives(const Problem& problem, int64_t num_positives) const override {
    PYBIND11_OVERRIDE_PURE(PositivesResult, Kernels, find_positives, problem, num_positives);
  }

  PartResult count_part(const Problem& problem, bool want_error_gradient, const at::Tensor& index,
                        const at::Tensor& score, const at::Tensor& status) const override {
    PYBIND11_OVERRIDE_PURE(PartResult, Kernels, count_part, problem, want_error_gradient, index, score,
                           status);
  }

  PartsResult forward_from_parts(const Problem& problem, int64_t loss,
                                 const std::optional<at::Tensor>& values, double eps, const at::Tensor& place,
                                 const at::Tensor& index, const at::Tensor& tables, const at::Tensor& sum,
                                 const at::Tensor& status) const override {
    PYBIND11_OVERRIDE_PURE(PartsResult, Kernels, forward_from_parts, problem, loss, values, eps, place, index,
                           tables, sum, status);
  }

  at::Tensor sums_from_parts(const Problem& problem, const at::Tensor& place, const at::Tensor& index,
                             const at::Tensor& tables, const at::Tensor& sum,
                             const at::Tensor& status) const override {
    PYBIND11_OVERRIDE_PURE(at::Tensor, Kernels, sums_from_parts, problem, place, index, tables, sum, status);
  }
};

// A method of the kernels called so. What it is given and what it returns are tensors and numbers: it needs no GIL.
template <typename Result, typename... Arguments>
auto by_name(Result (Kernels::*method)(Arguments...) const) {
  return [method](const std::string& backend, Arguments... arguments) {
    return (kernels_of(backend).*method)(arguments...);
  };
}

// The operator ranking_loss without its tables, which autograd alone reads.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> call_ranking_loss(
    const at::Tensor& logits, const at::Tensor& targets, const OptionalTensor& loc_errors, int64_t classes,
    int64_t background, bool continuous, double delta, int64_t algorithm, const std::string& backend,
    int64_t loss, double eps, const std::optional<c10::SymInt>& num_positives,
    const std::vector<c10::SymInt>& sizes, const std::vector<c10::SymInt>& counts) {
  auto [cls, loc, rank, precision, index, tables] =
      op<ranking_loss>("alrp_cuda::ranking_loss")
          .call(logits, targets, loc_errors, classes, background, continuous, delta, algorithm, backend, loss,
                eps, num_positives, sizes, counts, /*want_error_gradient=*/false);
  return {cls, loc, rank, precision};
}

using NoGil = py::call_guard<py::gil_scoped_release>;

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
  m.attr("cpu_capability") = alrp::cpu::name_of(alrp::cpu::level());

  py::class_<alrp::TargetLayout>(m, "TargetLayout")
      .def(py::init<int64_t, int64_t, bool>(), py::arg("classes"), py::arg("background"),
           py::arg("continuous") = false)
      .def_readonly("classes", &alrp::TargetLayout::classes)
      .def_readonly("background", &alrp::TargetLayout::background)
      .def_readonly("continuous", &alrp::TargetLayout::continuous);
  py::class_<alrp::Problem>(m, "Problem")
      .def(py::init<at::Tensor, at::Tensor, alrp::TargetLayout, double, int64_t, double, int64_t>(),
           py::arg("logits"), py::arg("targets"), py::arg("layout"), py::arg("delta"), py::arg("algorithm"),
           py::arg("skew") = 1.0, py::arg("others") = 0)
      .def_readonly("logits", &alrp::Problem::logits)
      .def_readonly("targets", &alrp::Problem::targets)
      .def_readonly("layout", &alrp::Problem::layout)
      .def_readonly("delta", &alrp::Problem::delta)
      .def_readonly("algorithm", &alrp::Problem::algorithm)
      .def_readonly("skew", &alrp::Problem::skew)
      .def_readonly("others", &alrp::Problem::others);
  py::class_<alrp::Kernels, alrp::PythonKernels>(m, "Kernels")
      .def(py::init<bool>(), py::arg("is_asynchronous"));
  py::class_<alrp::NativeKernels, alrp::Kernels>(m, "NativeKernels")
      .def(py::init<bool>(), py::arg("is_asynchronous"));
  m.def("register_kernels", &alrp::register_kernels, py::arg("backend"), py::arg("kernels"));
  m.def("set_debug", &alrp::set_debug, py::arg("enabled"));
  m.def("label_message", &alrp::label_message, py::arg("layout"));
  m.def("positives_message", &alrp::positives_message, py::arg("argument"), py::arg("told"),
        py::arg("found"));
  m.def("ranking_loss", &alrp::call_ranking_loss, alrp::NoGil(), py::arg("logits"), py::arg("targets"),
        py::arg("loc_errors"), py::arg("classes"), py::arg("background"), py::arg("continuous"),
        py::arg("delta"), py::arg("algorithm"), py::arg("backend"), py::arg("loss"), py::arg("eps"),
        py::arg("num_positives"), py::arg("sizes"), py::arg("counts"));
  m.def("choose_algorithm", &alrp::chosen, py::arg("algorithm"), py::arg("dtype"), py::arg("delta"),
        py::arg("positives"));

  using alrp::by_name, alrp::Kernels, alrp::NoGil;
  m.def("count_positives", by_name(&Kernels::count_positives), NoGil(), py::arg("backend"),
        py::arg("problem"));
  m.def("find_positives", by_name(&Kernels::find_positives), NoGil(), py::arg("backend"), py::arg("problem"),
        py::arg("num_positives"));
  m.def("count_part", by_name(&Kernels::count_part), NoGil(), py::arg("backend"), py::arg("problem"),
        py::arg("want_error_gradient"), py::arg("index"), py::arg("score"), py::arg("status"));
  m.def("forward_from_parts", by_name(&Kernels::forward_from_parts), NoGil(), py::arg("backend"),
        py::arg("problem"), py::arg("loss"), py::arg("values"), py::arg("eps"), py::arg("place"),
        py::arg("index"), py::arg("tables"), py::arg("sum"), py::arg("status"));
  m.def("sums_from_parts", by_name(&Kernels::sums_from_parts), NoGil(), py::arg("backend"),
        py::arg("problem"), py::arg("place"), py::arg("index"), py::arg("tables"), py::arg("sum"),
        py::arg("status"));
}

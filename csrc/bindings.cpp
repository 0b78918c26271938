// The pybind11 module alrp_cuda._C: the ranking code on tensors. alrp_cuda.ops checks arguments before it
// calls.
#include <torch/csrc/utils/pybind.h>

#include "torch/glue.h"
#include "torch/parts.h"

namespace py = pybind11;

#ifndef ALRP_ARCHS
#define ALRP_ARCHS ""
#endif

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.doc() = "Kernels of alrp_cuda";
#ifdef ALRP_WITH_CUDA
  m.attr("built_backends") = py::make_tuple("cpu", "cuda");
#else
  m.attr("built_backends") = py::make_tuple("cpu");
#endif
  m.attr("cuda_architectures") = ALRP_ARCHS;

  using NoGil = py::call_guard<py::gil_scoped_release>;
  py::class_<alrp::TargetLayout>(m, "TargetLayout")
      .def(py::init<int64_t, int64_t, bool>(), py::arg("classes"), py::arg("background"),
           py::arg("continuous") = false)
      .def_readonly("classes", &alrp::TargetLayout::classes)
      .def_readonly("background", &alrp::TargetLayout::background)
      .def_readonly("continuous", &alrp::TargetLayout::continuous);
  m.def("forward", &alrp::forward, NoGil(), py::arg("logits"), py::arg("targets"), py::arg("layout"),
        py::arg("num_positives"), py::arg("loss"), py::arg("loc_errors"), py::arg("want_error_gradient"),
        py::arg("delta"), py::arg("eps"), py::arg("algorithm"));
  m.def("backward", &alrp::backward, NoGil(), py::arg("logits"), py::arg("targets"), py::arg("layout"),
        py::arg("delta"), py::arg("algorithm"), py::arg("index"), py::arg("tables"), py::arg("grad_cls"),
        py::arg("grad_loc"), py::arg("loc_errors_dtype"), py::arg("skew") = 1.0, py::arg("others") = 0);
  m.def("sums", &alrp::sums, NoGil(), py::arg("logits"), py::arg("targets"), py::arg("layout"),
        py::arg("num_positives"), py::arg("delta"), py::arg("algorithm"), py::arg("skew"));
  m.def("drive", &alrp::drive, NoGil(), py::arg("logits"), py::arg("targets"), py::arg("layout"),
        py::arg("delta"), py::arg("algorithm"), py::arg("skew"), py::arg("index"), py::arg("tables"),
        py::arg("place"), py::arg("n_fp"), py::arg("norm"), py::arg("errors"), py::arg("z"), py::arg("eps"));
  m.def("pair_product", &alrp::pair_product, NoGil(), py::arg("logits"), py::arg("targets"),
        py::arg("layout"), py::arg("delta"), py::arg("algorithm"), py::arg("index"), py::arg("tables"),
        py::arg("place"), py::arg("weights"), py::arg("transposed"), py::arg("others") = 0);
  m.def("forward_slices", &alrp::forward_slices, NoGil(), py::arg("logits"), py::arg("targets"),
        py::arg("layout"), py::arg("sizes"), py::arg("counts"), py::arg("algorithms"), py::arg("loss"),
        py::arg("loc_errors"), py::arg("want_error_gradient"), py::arg("delta"), py::arg("eps"));
  m.def("backward_slices", &alrp::backward_slices, NoGil(), py::arg("logits"), py::arg("targets"),
        py::arg("layout"), py::arg("sizes"), py::arg("counts"), py::arg("algorithms"), py::arg("delta"),
        py::arg("index"), py::arg("tables"), py::arg("grad_cls"), py::arg("grad_loc"),
        py::arg("loc_errors_dtype"));
  m.def("count_slices", &alrp::count_slices, NoGil(), py::arg("logits"), py::arg("targets"),
        py::arg("layout"), py::arg("sizes"));
  m.def("find_positives", &alrp::find_positives, NoGil(), py::arg("logits"), py::arg("targets"),
        py::arg("layout"), py::arg("num_positives"));
  m.def("count_part", &alrp::count_part, NoGil(), py::arg("logits"), py::arg("targets"), py::arg("layout"),
        py::arg("others"), py::arg("delta"), py::arg("algorithm"), py::arg("skew"),
        py::arg("want_error_gradient"), py::arg("index"), py::arg("score"), py::arg("status"));
  m.def("forward_from_parts", &alrp::forward_from_parts, NoGil(), py::arg("logits"), py::arg("targets"),
        py::arg("layout"), py::arg("others"), py::arg("loss"), py::arg("values"), py::arg("delta"),
        py::arg("eps"), py::arg("algorithm"), py::arg("place"), py::arg("index"), py::arg("tables"),
        py::arg("sum"), py::arg("status"));
  m.def("sums_from_parts", &alrp::sums_from_parts, NoGil(), py::arg("logits"), py::arg("targets"),
        py::arg("layout"), py::arg("others"), py::arg("delta"), py::arg("algorithm"), py::arg("skew"),
        py::arg("place"), py::arg("index"), py::arg("tables"), py::arg("sum"), py::arg("status"));
  m.def("count_positives", &alrp::count_positives, NoGil(), py::arg("logits"), py::arg("targets"),
        py::arg("layout"));
}

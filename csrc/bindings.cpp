// The module alrp_cuda._C: loading it registers the operators; it has what Python needs beside them: the operator that every
// step calls, messages, build facts, and the steps of a ranking over several processes.
#include <torch/csrc/utils/pybind.h>

#include "cpu/level.h"
#include "torch/operators.h"
#include "torch/parts.h"
#include "torch/status.h"
#include "torch/tensors.h"

namespace py = pybind11;
using py::arg;

#ifndef ALRP_ARCHS
#define ALRP_ARCHS ""
#endif

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  using NoGil = py::call_guard<py::gil_scoped_release>;  // arguments and results are tensors and numbers
  m.doc() = "Kernels of alrp_cuda";
  m.attr("library") = ALRP_TEXT(ALRP_LIBRARY);  // of torch.ops
#ifdef ALRP_WITH_CUDA
  m.attr("built_backends") = py::make_tuple("cpu", "cuda");
#else
  m.attr("built_backends") = py::make_tuple("cpu");
#endif
  m.attr("cuda_architectures") = ALRP_ARCHS;
  m.attr("cpu_capability") = alrp::cpu::name_of(alrp::cpu::level());
  m.def("set_debug", &alrp::set_debug, arg("enabled"));
  m.def("label_message", &alrp::label_message, arg("classes"), arg("background"), arg("continuous"));
  m.def("positives_message", &alrp::positives_message, arg("argument"), arg("given"), arg("found"));
  m.def("choose_algorithm", &alrp::chosen, arg("algorithm"), arg("dtype"), arg("delta"), arg("positives"));
  m.def("ranking_loss", &alrp::call_ranking_loss, NoGil(), arg("logits"), arg("targets"), arg("loc_errors"),
        arg("classes"), arg("background"), arg("continuous"), arg("delta"), arg("algorithm"), arg("loss"),
        arg("eps"), arg("num_positives"), arg("sizes"), arg("counts"));

  py::class_<alrp::Call>(m, "Call", py::module_local())
      .def(py::init([](int64_t classes, int64_t background, bool continuous, double delta, int64_t algorithm,
                       double skew, int64_t others, bool wants_error_gradient) {
             return alrp::Call{classes, background, continuous, delta,  algorithm,
                               skew,    {},         {},         others, wants_error_gradient};
           }),
           arg("classes"), arg("background"), arg("continuous"), arg("delta"), arg("algorithm") = 0,
           arg("skew") = 1.0, arg("others") = 0, arg("wants_error_gradient") = false)
      .def_readonly("algorithm", &alrp::Call::algorithm);
  m.def("find_positives", &alrp::find_positives, NoGil(), arg("logits"), arg("targets"), arg("call"),
        arg("num_positives"));
  m.def("count_part", &alrp::count_part, NoGil(), arg("logits"), arg("targets"), arg("call"), arg("index"),
        arg("score"), arg("status"));
  m.def("loss_from_parts", &alrp::loss_from_parts, NoGil(), arg("logits"), arg("targets"), arg("call"),
        arg("loss"), arg("eps"), arg("values"), arg("place"), arg("state"), arg("sum"));
  m.def("sums_from_parts", &alrp::sums_from_parts, NoGil(), arg("logits"), arg("targets"), arg("call"),
        arg("place"), arg("state"), arg("sum"));
}

// Two operators of one signature are two.
#include "torch/operators.h"

at::Tensor first(const at::Tensor&);
at::Tensor second(const at::Tensor&);

static_assert(&alrp::op<first> != &alrp::op<second>);

// What depends on values in a tensor: raised where the host knows them anyway, NaN outputs elsewhere.
#pragma once

#include <string>

#include "kernels.h"

namespace alrp {

// Whether asynchronous kernels raise too, at the price of a synchronisation a call.
void set_debug(bool enabled);

// The words for targets that hold a value which is no label.
std::string label_message(TargetLayout layout);

// The words for an argument that told another number of positives than the targets hold.
std::string positives_message(const std::string& argument, int64_t told, int64_t found);

// Raises ValueError for an impossible label; returns the number of positives. The host waits.
int64_t positives_of(const at::Tensor& status, TargetLayout layout);

// Raises ValueError where `status` is that of an impossible label, or of other than the `told` positives, unless
// looking would make the host wait.
void check_status(const Kernels& kernels, const at::Tensor& status, TargetLayout layout,
                  const std::string& argument, int64_t told);

}  // namespace alrp

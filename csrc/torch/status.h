// What depends on values in a tensor: raised where the host knows them anyway, NaN outputs elsewhere.
#pragma once

#include <string>

#include "call.h"
#include "device.h"

namespace alrp {

// Whether asynchronous devices raise too, at the price of a synchronisation a call; at first what ALRP_CUDA_DEBUG says.
void set_debug(bool enabled);

// The words for targets that hold a value which is no label.
std::string label_message(int64_t classes, int64_t background, bool continuous);

// The words for an argument that gave another number of positives than the targets hold.
std::string positives_message(const std::string& argument, int64_t given, int64_t found);

// Raises ValueError for an impossible label; returns the number of positives. `status` lies in `memory`. The host waits.
int64_t positives_of(Status* status, const at::Tensor& memory, const Call& call);

// Raises ValueError where `status` is that of an impossible label, or of other than the p positives that `argument` gave, unless
// looking would make the host wait.
void check_status(const DeviceScope& device, Status* status, const at::Tensor& memory, const Call& call,
                  const std::string& argument, int64_t p);

}  // namespace alrp

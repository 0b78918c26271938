#include "status.h"

#include <atomic>
#include <cstdlib>
#include <string_view>

#include "tensors.h"

namespace alrp {
namespace {

bool wanted() {
  const char* variable = std::getenv("ALRP_CUDA_DEBUG");
  return variable && *variable && std::string_view(variable) != "0";
}

std::atomic<bool> debug{wanted()};

}  // namespace

void set_debug(bool enabled) { debug = enabled; }

std::string label_message(int64_t classes, int64_t background, bool continuous) {
  std::string rule = "1 (positive), 0 (negative) or negative (ignored)";
  if (continuous) rule = "above 0 and finite (positive), 0 (negative) or negative (ignored)";
  if (classes)
    rule =
        c10::str("class indices 0..", classes - 1, ", ", background, " (background) or negative (ignored)");
  return "targets must be " + rule + ", got another value";
}

std::string positives_message(const std::string& argument, int64_t given, int64_t found) {
  if (argument == "loc_errors")
    return c10::str("loc_errors must have one error per positive: targets hold ", found, " positives, got ",
                    given, " errors");
  if (argument == "extras")
    return c10::str("extras must have one value per positive: targets hold ", found, " positives, got ",
                    given, " values");
  return c10::str(argument, " must be the number of positives in targets, ", found, ", got ", given);
}

int64_t positives_of(Status* status, const at::Tensor& memory, const Call& call) {
  at::Tensor here;
  if (!memory.is_cpu()) {
    here = view_of(memory, status, {kStatusWords}, at::kLong).cpu();
    status = static_cast<Status*>(here.mutable_data_ptr());
  }
  TORCH_CHECK_VALUE(!status->invalid, label_message(call.classes, call.background, call.continuous));
  return status->found;
}

void check_status(const DeviceScope& device, Status* status, const at::Tensor& memory, const Call& call,
                  const std::string& argument, int64_t p) {
  if (device.is_asynchronous() && !debug) return;
  const int64_t found = positives_of(status, memory, call);
  TORCH_CHECK_VALUE(found == p, positives_message(argument, p, found));
}

}  // namespace alrp

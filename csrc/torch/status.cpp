#include "status.h"

#include <atomic>

namespace alrp {
namespace {

std::atomic<bool> debug{false};

}  // namespace

void set_debug(bool enabled) { debug = enabled; }

std::string label_message(TargetLayout layout) {
  std::string rule = "1 (positive), 0 (negative) or negative (ignored)";
  if (layout.continuous) rule = "above 0 and finite (positive), 0 (negative) or negative (ignored)";
  if (layout.classes)
    rule = c10::str("class indices 0..", layout.classes - 1, ", ", layout.background,
                    " (background) or negative (ignored)");
  return "targets must be " + rule + ", got another value";
}

std::string positives_message(const std::string& argument, int64_t told, int64_t found) {
  if (argument == "loc_errors")
    return c10::str("loc_errors must have one error per positive: targets hold ", found, " positives, got ",
                    told, " errors");
  if (argument == "extras")
    return c10::str("extras must have one value per positive: targets hold ", found, " positives, got ", told,
                    " values");
  return c10::str(argument, " must be the number of positives in targets, ", found, ", got ", told);
}

int64_t positives_of(const at::Tensor& status, TargetLayout layout) {
  const at::Tensor here = status.cpu();
  const auto* values = here.const_data_ptr<int64_t>();
  TORCH_CHECK_VALUE(!values[1], label_message(layout));
  return values[0];
}

void check_status(const Kernels& kernels, const at::Tensor& status, TargetLayout layout,
                  const std::string& argument, int64_t told) {
  if (kernels.is_asynchronous() && !debug) return;
  const int64_t found = positives_of(status, layout);
  TORCH_CHECK_VALUE(found == told, positives_message(argument, told, found));
}

}  // namespace alrp

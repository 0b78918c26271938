#include <map>
#include <mutex>

#include "kernels.h"
#include "native.h"

namespace alrp {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<std::string, const Kernels*> kernels;
};

Registry& registry() {
  static const NativeKernels cpu(false);
#ifdef ALRP_WITH_CUDA
  static const NativeKernels cuda(true);
  static Registry known{{}, {{"cpu", &cpu}, {"cuda", &cuda}}};
#else
  static Registry known{{}, {{"cpu", &cpu}}};
#endif
  return known;
}

}  // namespace

const Kernels& kernels_of(const std::string& backend) {
  Registry& known = registry();
  const std::lock_guard lock(known.mutex);
  const auto found = known.kernels.find(backend);
  TORCH_CHECK_VALUE(found != known.kernels.end(), "backend must be one that was built or registered, got '",
                    backend, "'");
  return *found->second;
}

void register_kernels(const std::string& backend, const Kernels* kernels) {
  Registry& known = registry();
  const std::lock_guard lock(known.mutex);
  known.kernels[backend] = kernels;
}

}  // namespace alrp

#include "level.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <stdexcept>
#include <string>

namespace alrp::cpu {
namespace {

constexpr const char* kNames[] = {"default", "avx2", "avx512"};  // by Level
constexpr const char* kVariable = "ALRP_CPU_CAPABILITY";

Level highest() {
#ifdef ALRP_AVX2
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c") ||
      !__builtin_cpu_supports("bmi") || !__builtin_cpu_supports("bmi2"))
    return Level::kDefault;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
    return Level::kAvx512;
  return Level::kAvx2;
#else
  return Level::kDefault;
#endif
}

Level allowed() {
  const char* const wish = std::getenv(kVariable);
  if (!wish) return Level::kAvx512;
  const auto name = std::find(std::begin(kNames), std::end(kNames), std::string(wish));
  if (name == std::end(kNames))
    throw std::invalid_argument(std::string(kVariable) + " must be default, avx2 or avx512, got '" + wish +
                                "'");
  return static_cast<Level>(name - std::begin(kNames));
}

}  // namespace

Level level() {
  static const Level level = std::min(highest(), allowed());
  return level;
}

const char* name_of(Level level) { return kNames[static_cast<int>(level)]; }

}  // namespace alrp::cpu

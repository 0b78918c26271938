#include "level.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace alrp::cpu {
namespace {

// By Level.
#if defined(ALRP_AVX2)
constexpr const char* kNames[] = {"default", "avx2", "avx512"};
#elif defined(ALRP_NEON)
constexpr const char* kNames[] = {"default", "neon"};
#else
constexpr const char* kNames[] = {"default"};
#endif
constexpr const char* kVariable = "ALRP_CPU_CAPABILITY";

Level highest() {
#if defined(ALRP_AVX2)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c") ||
      !__builtin_cpu_supports("bmi") || !__builtin_cpu_supports("bmi2"))
    return Level::kDefault;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
    return Level::kAvx512;
  return Level::kAvx2;
#elif defined(ALRP_NEON)
  return Level::kNeon;
#else
  return Level::kDefault;
#endif
}

Level allowed() {
  const char* const wish = std::getenv(kVariable);
  if (!wish) return highest();
  std::string known;
  for (const char* const& name : kNames) {
    if (name == std::string(wish)) return static_cast<Level>(&name - kNames);
    known += known.empty() ? name : std::string(", ") + name;
  }
  throw std::invalid_argument(std::string(kVariable) + " must be one of " + known + ", got '" + wish + "'");
}

}  // namespace

Level level() {
  static const Level level = std::min(highest(), allowed());
  return level;
}

const char* name_of(Level level) { return kNames[static_cast<int>(level)]; }

}  // namespace alrp::cpu

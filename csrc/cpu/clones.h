// Loops that compilers vectorise by themselves: one source, compiled for each level of CPU.
#pragma once

#include "level.h"

// Marks a loop for by_level(): inlined, it is compiled for the level of its caller.
#define ALRP_LOOP [[gnu::always_inline]] inline

namespace alrp::cpu {
namespace detail {

#ifdef ALRP_AVX2
template <auto kLoop, typename... Arguments>
__attribute__((target("avx2"))) void run_avx2(Arguments... arguments) {
  kLoop(arguments...);
}

template <auto kLoop, typename... Arguments>
__attribute__((target("avx512f"))) void run_avx512(Arguments... arguments) {
  kLoop(arguments...);
}
#endif

}  // namespace detail

// kLoop(arguments...), an ALRP_LOOP, as compiled for level().
template <auto kLoop, typename... Arguments>
void by_level(Arguments... arguments) {
  switch (level()) {
#ifdef ALRP_AVX2
    case Level::kAvx512:
      return detail::run_avx512<kLoop>(arguments...);
    case Level::kAvx2:
      return detail::run_avx2<kLoop>(arguments...);
#endif
    default:
      return kLoop(arguments...);
  }
}

}  // namespace alrp::cpu

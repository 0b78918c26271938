// Whether this CPU has the AVX-512 that some loops are written in a second time, for the same bits as their
// portable form. Tests define ALRP_PORTABLE to have the portable form alone.
#pragma once

#if defined(__x86_64__) && !defined(ALRP_PORTABLE)
#define ALRP_AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,popcnt")))

namespace alrp::cpu {

inline bool has_avx512() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  return has;
}

}  // namespace alrp::cpu
#endif

// Which vector instructions this CPU has, and may be used.
#pragma once

namespace alrp::cpu {

// Each has what those before it have.
enum class Level { kDefault, kAvx2, kAvx512 };

// The highest level that this CPU has, but none above ALRP_CPU_CAPABILITY, an environment variable: default,
// avx2 or avx512. Throws std::invalid_argument where it is set to anything else. Read once.
Level level();

// As that variable names it.
const char* name_of(Level level);

}  // namespace alrp::cpu

#if defined(__x86_64__)
#define ALRP_AVX2 __attribute__((target("avx2,fma,f16c,bmi,bmi2,popcnt")))
#define ALRP_AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,f16c,popcnt")))
#endif

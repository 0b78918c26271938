// Which vector instructions this CPU has, and may be used.
#pragma once

#if defined(__x86_64__)
#define ALRP_AVX2 __attribute__((target("avx2,fma,f16c,bmi,bmi2,popcnt")))
#define ALRP_AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,f16c,popcnt")))
#elif defined(__aarch64__)
#define ALRP_NEON
#endif

namespace alrp::cpu {

// Those of this architecture. Each has what those before it have.
#if defined(ALRP_AVX2)
enum class Level { kDefault, kAvx2, kAvx512 };
#elif defined(ALRP_NEON)
enum class Level { kDefault, kNeon };
#else
enum class Level { kDefault };
#endif

// The highest level that this CPU has, but none above ALRP_CPU_CAPABILITY, an environment variable that names one.
// Throws std::invalid_argument where it is set to anything else. Read once.
Level level();

// As that variable names it.
const char* name_of(Level level);

}  // namespace alrp::cpu

#include "halves.h"

#include "clones.h"

#ifdef ALRP_AVX2
#include <immintrin.h>
#endif

namespace alrp::cpu {
namespace {

template <typename From, typename To>
ALRP_LOOP void convert(const From* from, int64_t size, To* to) {
  for (int64_t k = 0; k < size; ++k) to[k] = static_cast<To>(from[k]);
}

#ifdef ALRP_AVX2
// By F16C, which compilers do not use by themselves. Converts whole eights and returns how many numbers.
ALRP_AVX2
int64_t convert_eights(const c10::Half* from, int64_t size, float* to) {
  int64_t k = 0;
  for (; k + 8 <= size; k += 8)
    _mm256_storeu_ps(to + k, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + k))));
  return k;
}

ALRP_AVX2
int64_t convert_eights(const float* from, int64_t size, c10::Half* to) {
  int64_t k = 0;
  for (; k + 8 <= size; k += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + k),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + k), _MM_FROUND_TO_NEAREST_INT));
  return k;
}
#endif

template <typename From, typename To>
void convert_half(const From* from, int64_t size, To* to) {
  int64_t done = 0;
#ifdef ALRP_AVX2
  if (level() >= Level::kAvx2) done = convert_eights(from, size, to);
#endif
  convert(from + done, size - done, to + done);
}

}  // namespace

void to_floats(const c10::Half* from, int64_t size, float* to) { convert_half(from, size, to); }

void to_floats(const c10::BFloat16* from, int64_t size, float* to) {
  by_level<convert<c10::BFloat16, float>>(from, size, to);
}

void from_floats(const float* from, int64_t size, c10::Half* to) { convert_half(from, size, to); }

void from_floats(const float* from, int64_t size, c10::BFloat16* to) {
  by_level<convert<float, c10::BFloat16>>(from, size, to);
}

}  // namespace alrp::cpu

// The streaming loops in AVX2: vectors of eight. Gathers are slower here than loads one by one.
#include "loops.h"

#ifdef ALRP_AVX2

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#define ALRP_LEVEL ALRP_AVX2
#define ALRP_F16C
#define ALRP_VECTOR_BYTES 32
#include "plain_loops.h"
#include "vectors.h"

namespace alrp::cpu {
namespace {

// Permutations of eight lanes for vpermps, a byte each, by the mask of the lanes that are kept.
struct Moves {
  // compress[mask][k]: the lane that comes k-th. expand[mask][k]: the value for lane k, negative where none is.
  alignas(64) std::array<std::array<int8_t, kEight>, 256> compress{}, expand{};

  constexpr Moves() {
    for (int mask = 0; mask < 256; ++mask) {
      int8_t m = 0;
      for (int8_t k = 0; k < kEight; ++k) {
        const bool kept = mask >> k & 1;
        expand[mask][k] = kept ? m : int8_t{-128};
        if (kept) compress[mask][m++] = k;
      }
    }
  }
};

constexpr Moves kMoves;

ALRP_INLINE __m256i widened(const void* eight_bytes) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(eight_bytes)));
}

ALRP_INLINE unsigned bits(const Ints& mask) {
  return static_cast<unsigned>(_mm256_movemask_ps(reinterpret_cast<__m256>(mask.part[0])));
}

ALRP_INLINE Floats least(const Floats& a, const Floats& b) { return {_mm256_min_ps(a.part[0], b.part[0])}; }

ALRP_INLINE Floats by_sign(const Floats& sign, const Floats& a, const Floats& b) {
  return {_mm256_blendv_ps(b.part[0], a.part[0], sign.part[0])};
}

ALRP_INLINE int64_t compress(const Floats& from, unsigned bits, float* to) {
  _mm256_storeu_ps(to, _mm256_permutevar8x32_ps(from.part[0], widened(kMoves.compress[bits].data())));
  return std::popcount(bits);
}

ALRP_INLINE Floats expand(unsigned bits, const float** from) {
  const __m256i lanes = widened(kMoves.expand[bits].data());
  const __m256 moved = _mm256_permutevar8x32_ps(_mm256_loadu_ps(*from), lanes);
  *from += std::popcount(bits);
  return {_mm256_blendv_ps(moved, _mm256_setzero_ps(), _mm256_castsi256_ps(lanes))};
}

ALRP_INLINE int32_t at_most(const float* four, float score) {
  return std::popcount(
      static_cast<unsigned>(_mm_movemask_ps(_mm_cmple_ps(_mm_loadu_ps(four), _mm_set1_ps(score)))));
}

ALRP_INLINE Bits gather(const uint32_t* entries, const Indices& at) {
  return {{Bits::Part{entries[at[0]], entries[at[1]], entries[at[2]], entries[at[3]], entries[at[4]],
                      entries[at[5]], entries[at[6]], entries[at[7]]}}};
}

struct Fields {
  Floats end, base, slope_below, slope_above;
};

ALRP_INLINE __m256 low(__m256 a, __m256 b) {
  return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
}

ALRP_INLINE __m256 high(__m256 a, __m256 b) {
  return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
}

ALRP_INLINE Fields gather_records(const void* records, const Indices& at) {
  const auto two = [&](int64_t a, int64_t b) ALRP_AVX2 __attribute__((always_inline)) {
    const auto* bytes = static_cast<const char*>(records);
    const auto* first = reinterpret_cast<const float*>(bytes + at[a]);
    const auto* second = reinterpret_cast<const float*>(bytes + at[b]);
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_load_ps(first)), _mm_load_ps(second), 1);
  };
  const __m256 a = two(0, 4), b = two(1, 5), c = two(2, 6), d = two(3, 7);
  const __m256 ab = _mm256_unpacklo_ps(a, b), cd = _mm256_unpacklo_ps(c, d);
  const __m256 slopes_ab = _mm256_unpackhi_ps(a, b), slopes_cd = _mm256_unpackhi_ps(c, d);
  return {{low(ab, cd)}, {high(ab, cd)}, {low(slopes_ab, slopes_cd)}, {high(slopes_ab, slopes_cd)}};
}

// Kept in registers: by memory they take longer.
class Terms {
 public:
  ALRP_INLINE explicit Terms(const Narrow& position)
      : scale_(_mm256_set1_pd(position.scale)), offset_(_mm256_set1_pd(position.offset + Narrow::kShift)) {}

  ALRP_INLINE FourTerms of(const float* four) const {
    const __m256i shift = _mm256_set1_epi64x(std::bit_cast<int64_t>(Narrow::kShift)),
                  one = _mm256_set1_epi64x(1);
    const __m256d s = _mm256_cvtps_pd(_mm_loadu_ps(four));
    const __m256i shifted = _mm256_castpd_si256(_mm256_fmadd_pd(s, scale_, offset_));  // as Narrow::of
    const __m256i at = _mm256_sub_epi64(shifted, shift);
    const __m256i even = _mm256_unpacklo_epi64(at, one), odd = _mm256_unpackhi_epi64(at, one);
    return {{reinterpret_cast<Term>(_mm256_castsi256_si128(even)),
             reinterpret_cast<Term>(_mm256_castsi256_si128(odd)),
             reinterpret_cast<Term>(_mm256_extracti128_si256(even, 1)),
             reinterpret_cast<Term>(_mm256_extracti128_si256(odd, 1))}};
  }

 private:
  __m256d scale_, offset_;
};

ALRP_INLINE void stream(float* to, const Floats& floats) { _mm256_stream_ps(to, floats.part[0]); }

void fence() { _mm_sfence(); }

}  // namespace
}  // namespace alrp::cpu

#include "vector_loops.h"

namespace alrp::cpu {

constinit const Loops Loops::avx2{
    kPlainLoops,       cpu::select, cpu::look_up_segments, cpu::add_to_bins, cpu::look_up_values,
    cpu::write_values, cpu::fence,
};

}  // namespace alrp::cpu

#endif

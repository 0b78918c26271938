#include "narrow_avx512.h"

#ifdef ALRP_AVX512

#include <immintrin.h>

#include <algorithm>
#include <bit>

// What GCC's own headers leave uninitialised on purpose.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace alrp::cpu {
namespace {

__mmask16 first(int64_t count) {
  return static_cast<__mmask16>(count < kLanes ? (1u << count) - 1 : 0xffffu);
}

// Stores the first `count` lanes.
ALRP_AVX512
inline void store(float* out, __m512 values, int64_t count, bool stream) {
  if (count < kLanes)
    _mm512_mask_storeu_ps(out, first(count), values);
  else if (stream)
    _mm512_stream_ps(out, values);
  else
    _mm512_storeu_ps(out, values);
}

}  // namespace

bool has_avx512() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  return has;
}

ALRP_AVX512
bool select_avx512(const float* scores, const Mark* marks, int64_t size, const Range& range, Selected* out) {
  const __m512 below = _mm512_set1_ps(range.below), lowest = _mm512_set1_ps(range.lowest),
               highest = _mm512_set1_ps(range.highest);
  int64_t m = 0;
  unsigned nan = 0;
  for (int64_t k = 0; k < size; k += kLanes) {
    // The hardware looks no further ahead than a page.
    _mm_prefetch(reinterpret_cast<const char*>(scores + k + kBlock), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(marks + k + kBlock), _MM_HINT_T0);
    const __mmask16 live = first(size - k);
    const __m512 s = _mm512_maskz_loadu_ps(live, scores + k);
    const __m128i mark = _mm_maskz_loadu_epi8(live, marks + k);
    const __mmask16 negative = _mm_mask_cmpeq_epi8_mask(live, mark, _mm_setzero_si128());
    nan |= _mm512_mask_cmp_ps_mask(negative, s, s, _CMP_UNORD_Q);
    const __mmask16 keep = _mm512_mask_cmp_ps_mask(negative, s, lowest, _CMP_GE_OQ);
    const __m512 limited = _mm512_mask_min_ps(below, keep, s, highest);
    if (out->in_place) {
      _mm512_store_ps(out->score + k, limited);
    } else {
      // Compressed in a register and stored whole: the compressing store is slow on some CPUs.
      _mm512_storeu_ps(out->score + m, _mm512_mask_compress_ps(below, keep, limited));
      out->keep[k / kLanes] = keep;
    }
    m += std::popcount(static_cast<unsigned>(keep));
  }
  if (!out->in_place) _mm512_storeu_ps(out->score + m, below);
  out->size = out->in_place ? size : m;
  out->matter = m;
  return nan != 0;
}

ALRP_AVX512
void Grid::segments_avx512(const float* score, int64_t size, int32_t* segment) const {
  const __m512 below = _mm512_set1_ps(below_), scale = _mm512_set1_ps(scale_);
  const __m512i one = _mm512_set1_epi32(1), lanes = _mm512_set1_epi32(kLanes),
                mask = _mm512_set1_epi32((1 << shift_) - 1);
  const __m128i shift = _mm_cvtsi32_si128(shift_);
  int32_t rare[kBlock + kLanes];  // listed, not branched on: that would be a misprediction each
  int64_t found = 0;
  __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int64_t k = 0; k < size; k += kLanes) {
    const __m512 offset = _mm512_sub_ps(_mm512_loadu_ps(score + k), below);
    const __m512i y = _mm512_or_si512(_mm512_cvttps_epi32(_mm512_mul_ps(offset, scale)), one);
    const __m512i entry = _mm512_i32gather_epi32(_mm512_srl_epi32(y, shift), entries_.data(), 4);
    const __m512i sum = _mm512_add_epi32(y, entry);
    _mm512_storeu_si512(segment + k, _mm512_srl_epi32(sum, shift));
    const auto search =
        static_cast<__mmask16>(_mm512_movepi32_mask(sum) | _mm512_testn_epi32_mask(sum, mask));
    _mm512_storeu_si512(rare + found, _mm512_maskz_compress_epi32(search, at));
    found += std::popcount(static_cast<unsigned>(search));
    at = _mm512_add_epi32(at, lanes);
  }
  const int32_t several = static_cast<int32_t>(0x80000000u >> shift_);
  for (int64_t r = 0; r < found; ++r) {  // as Grid::search
    static_assert(kStep == 4);
    const int32_t k = rare[r], m = std::max(0, (segment[k] & ~several) - 1);
    const __mmask8 within = _mm_cmp_ps_mask(_mm_loadu_ps(&ends_[m]), _mm_set1_ps(score[k]), _CMP_LE_OQ);
    segment[k] =
        within == 0xf ? search_far(m + kStep, score[k]) : m + std::popcount(static_cast<unsigned>(within));
  }
}

ALRP_AVX512
void add_to_bins_avx512(const float* score, const int32_t* segment, int64_t size, const Narrow& position,
                        Bin<Narrow::Sum>* bins) {
  // A double near it holds an integer in its low bits: conversion without an instruction that few CPUs have.
  constexpr double kMagic = 0x1.8p52;
  const __m512d scale = _mm512_set1_pd(position.scale), offset = _mm512_set1_pd(position.offset + kMagic);
  const __m512i magic = _mm512_set1_epi64(std::bit_cast<int64_t>(kMagic));
  const __m128i one = _mm_set_epi64x(1, 0);
  alignas(64) int64_t positions[kLanes];
  for (int64_t k = 0; k < size; k += kLanes) {
    for (int half = 0; half < kLanes; half += 8) {
      const __m512d s = _mm512_cvtps_pd(_mm256_loadu_ps(score + k + half));
      const __m512i biased = _mm512_castpd_si512(_mm512_fmadd_pd(s, scale, offset));
      _mm512_store_si512(positions + half, _mm512_sub_epi64(biased, magic));
    }
    const int64_t count = size - k < kLanes ? size - k : kLanes;
    for (int64_t i = 0; i < count; ++i) {  // both words of the bin at once
      static_assert(sizeof(Bin<Narrow::Sum>) == 16);
      auto* bin = reinterpret_cast<__m128i*>(bins + segment[k + i]);
      const __m128i add = _mm_or_si128(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(positions + i)), one);
      _mm_storeu_si128(bin, _mm_add_epi64(_mm_loadu_si128(bin), add));
    }
  }
}

namespace {

// The q-th, q+4-th, q+8-th and q+12-th of sixteen records, a quarter each. Loads; gathers are slower.
ALRP_AVX512
inline __m512 quarter(const Record* records, const int32_t* segment, int q) {
  const auto record = [&](int i) { return _mm_load_ps(&records[segment[i]].from); };
  __m512 row = _mm512_castps128_ps512(record(q));
  row = _mm512_insertf32x4(row, record(q + 4), 1);
  row = _mm512_insertf32x4(row, record(q + 8), 2);
  return _mm512_insertf32x4(row, record(q + 12), 3);
}

ALRP_AVX512
inline __m512 low(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

ALRP_AVX512
inline __m512 high(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

}  // namespace

ALRP_AVX512
void evaluate_avx512(const Record* records, float per_step, const float* score, const int32_t* segment,
                     int64_t size, bool stream, float* out) {
  const __m512 scale = _mm512_set1_ps(per_step);
  for (int64_t k = 0; k < size; k += kLanes) {
    const __m512 a = quarter(records, segment + k, 0), b = quarter(records, segment + k, 1),
                 c = quarter(records, segment + k, 2), d = quarter(records, segment + k, 3);
    const __m512 ab = _mm512_unpacklo_ps(a, b), cd = _mm512_unpacklo_ps(c, d);
    const __m512 from = low(ab, cd), base = high(ab, cd),
                 slope = low(_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
    const __m512 steps = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(score + k), from), scale);
    store(out + k, _mm512_add_ps(base, _mm512_mul_ps(slope, steps)), size - k, stream);
  }
}

ALRP_AVX512
void expand_avx512(const float* dense, const uint16_t* keep, int64_t size, bool stream, float* out) {
  for (int64_t k = 0; k < size; k += kLanes) {
    const unsigned bits = keep[k / kLanes];
    store(out + k, _mm512_maskz_expand_ps(static_cast<__mmask16>(bits), _mm512_loadu_ps(dense)), size - k,
          stream);
    dense += std::popcount(bits);
  }
}

void fence_avx512() { _mm_sfence(); }

}  // namespace alrp::cpu

#endif

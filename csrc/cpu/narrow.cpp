#include "narrow.h"

#include <algorithm>
#include <bit>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "clones.h"

namespace alrp::cpu {
namespace {

constexpr int kCoarseBits = 30;
constexpr int64_t kCellsPerKnot = 16;
constexpr uint32_t kSeveral = 0x80000000u;  // marks a cell with several knots

}  // namespace

Grid::Grid(const Knots<int64_t>& knots, int64_t most)
    : knots_(knots.at.data()), knot_count_(static_cast<int64_t>(knots.at.size())), lowest_(knots.at.front()) {
  const auto range = static_cast<uint64_t>(knots.at.back() - lowest_) + 1;
  coarse_ = std::max(0, static_cast<int>(std::bit_width(range)) - kCoarseBits);
  highest_ = knots.at.back() + (int64_t{1} << coarse_);
  const auto span = static_cast<uint32_t>(static_cast<uint64_t>(highest_ - lowest_) >> coarse_);
  const int64_t wish = std::clamp<int64_t>(knot_count_ * kCellsPerKnot, 256, std::max<int64_t>(256, most));
  shift_ =
      std::max(1, static_cast<int>(std::bit_width(span)) - static_cast<int>(std::bit_width<uint64_t>(wish)));
  mask_ = (uint32_t{1} << shift_) - 1;
  const uint32_t cells = (span >> shift_) + 1;
  entries_.resize(cells);
  int64_t k = 0;  // knots below the cell
  for (uint32_t cell = 0; cell < cells; ++cell) {
    const uint32_t start = cell << shift_;
    const int64_t below = k;
    uint32_t place = 0;
    for (; k < knot_count_; ++k) {
      const auto y = static_cast<uint32_t>(static_cast<uint64_t>(knots_[k] - lowest_) >> coarse_);
      if (y >> shift_ != cell) break;
      place = y - start;
    }
    entries_[cell] = (static_cast<uint32_t>(below) << shift_) - start;
    if (k == below + 1) entries_[cell] += mask_ + 1 - place;
    if (k > below + 1) entries_[cell] += kSeveral;
  }
}

int64_t Grid::compare(int64_t x, uint32_t sum) const {
  int64_t m = (sum & ~kSeveral) >> shift_;
  if (sum == (sum & ~kSeveral) && m > 0) --m;  // the knot that was counted may lie above x
  constexpr int kSteps = 8;
  for (int step = 0; step < kSteps; ++step, ++m)
    if (m == knot_count_ || knots_[m] > x) return m;
  return std::upper_bound(knots_ + m, knots_ + knot_count_, x) - knots_;
}

namespace {

// Adding it leaves a double's integer part in its low bits: conversion without an instruction that few CPUs
// have.
constexpr double kMagic = 0x1.8p52;

ALRP_CLONES
bool positions_of(const float* scores, const Mark* marks, int64_t size, const Quantiser& q, int64_t* position,
                  uint8_t* keep) {
  const double origin = q.origin, scale = q.scale, lowest = q.lowest, highest = q.highest;
  const auto magic = std::bit_cast<int64_t>(kMagic);
  for (int64_t k = 0; k < size; ++k) {
    double v = (static_cast<double>(scores[k]) - origin) * scale;
    v = v > lowest ? v : lowest;  // NaN too
    v = v < highest ? v : highest;
    position[k] = std::bit_cast<int64_t>(v + kMagic) - magic;
    keep[k] = static_cast<uint8_t>(v > lowest);
  }
  uint8_t nan = 0;
  for (int64_t k = 0; k < size; ++k) {
    const auto negative = static_cast<uint8_t>(marks[k] == Mark::kNegative);
    keep[k] &= negative;
    nan |= negative & static_cast<uint8_t>(scores[k] != scores[k]);
  }
  return nan;
}

bool quantise_portable(const float* scores, const Mark* marks, int64_t size, const Quantiser& q,
                       Quantised* out) {
  int64_t position[kBlock];
  uint8_t keep[kBlock];
  const bool nan = positions_of(scores, marks, size, q, position, keep);
  int64_t m = 0;
  for (int64_t k = 0; k < size; ++k) {  // without branches: the count advances or it does not
    out->position[m] = position[k];
    out->column[m] = static_cast<int32_t>(k);
    m += keep[k];
  }
  out->size = m;
  return nan;
}

#ifdef __x86_64__
__attribute__((target("avx512f,avx512vl,avx512bw"))) bool quantise_avx512(const float* scores,
                                                                          const Mark* marks, int64_t size,
                                                                          const Quantiser& q,
                                                                          Quantised* out) {
  const __m512d origin = _mm512_set1_pd(q.origin), scale = _mm512_set1_pd(q.scale),
                magic = _mm512_set1_pd(kMagic);
  const __m512d lowest = _mm512_set1_pd(q.lowest), highest = _mm512_set1_pd(q.highest);
  __m256i column = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  int64_t m = 0;
  unsigned nan = 0;
  for (int64_t k = 0; k < size; k += 8) {
    const auto live = static_cast<__mmask8>(size - k < 8 ? (1u << (size - k)) - 1 : 0xffu);
    const __m256 s = _mm256_maskz_loadu_ps(live, scores + k);
    const __m128i mark = _mm_maskz_loadu_epi8(live, marks + k);
    const auto negative = static_cast<__mmask8>(_mm_mask_cmpeq_epi8_mask(live, mark, _mm_setzero_si128()));
    nan |= _mm256_mask_cmp_ps_mask(negative, s, s, _CMP_UNORD_Q);
    __m512d v = _mm512_mul_pd(_mm512_sub_pd(_mm512_cvtps_pd(s), origin), scale);
    v = _mm512_min_pd(v, highest);  // of NaN: highest; whoever is NaN spoils every result anyway
    const __mmask8 keep = _mm512_mask_cmp_pd_mask(negative, v, lowest, _CMP_GT_OQ);
    const __m512i position =
        _mm512_sub_epi64(_mm512_castpd_si512(_mm512_add_pd(v, magic)), _mm512_castpd_si512(magic));
    // Compressed in a register and stored whole: the compressing store is slow on some CPUs.
    _mm512_storeu_si512(out->position + m, _mm512_maskz_compress_epi64(keep, position));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out->column + m),
                        _mm256_maskz_compress_epi32(keep, column));
    m += __builtin_popcount(keep);
    column = _mm256_add_epi32(column, _mm256_set1_epi32(8));
  }
  out->size = m;
  return nan != 0;
}

const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512bw");
#endif

}  // namespace

void quantise(const float* scores, const Mark* marks, int64_t size, const Quantiser& q, Quantised* out,
              bool* nan) {
#ifdef __x86_64__
  if (has_avx512) {
    *nan |= quantise_avx512(scores, marks, size, q, out);
    return;
  }
#endif
  *nan |= quantise_portable(scores, marks, size, q, out);
}

}  // namespace alrp::cpu

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

int32_t Grid::compare(int64_t x, uint32_t sum) const {
  int64_t m = (sum & ~kSeveral) >> shift_;
  if (sum == (sum & ~kSeveral) && m > 0) --m;  // the knot that was counted may lie above x
  constexpr int kSteps = 8;
  for (int step = 0; step < kSteps; ++step, ++m)
    if (m == knot_count_ || knots_[m] > x) return static_cast<int32_t>(m);
  return static_cast<int32_t>(std::upper_bound(knots_ + m, knots_ + knot_count_, x) - knots_);
}

int32_t Grid::look_up(int64_t x) const {
  const auto y = static_cast<uint32_t>(static_cast<uint64_t>(x - lowest_) >> coarse_);
  const uint32_t sum = y + entries_[y >> shift_];
  if (sum >= kSeveral || !(sum & mask_)) [[unlikely]]
    return compare(x, sum);
  return static_cast<int32_t>(sum >> shift_);
}

namespace {

// A double near it holds an integer in its low bits: conversion without an instruction that few CPUs have.
// Positions and limits keep this bias until they are stored.
constexpr double kMagic = 0x1.8p52;

double biased(int64_t position) { return static_cast<double>(position) + kMagic; }

ALRP_CLONES
bool positions_of(const float* scores, const Mark* marks, int64_t size, const Quantiser& q, int64_t* position,
                  uint8_t* keep) {
  const double scale = q.scale, offset = q.offset + kMagic, lowest = biased(q.lowest),
               highest = biased(q.highest);
  const auto magic = std::bit_cast<int64_t>(kMagic);
  for (int64_t k = 0; k < size; ++k) {
    double v = static_cast<double>(scores[k]) * scale + offset;
    v = v > lowest ? v : lowest;  // NaN too
    v = v < highest ? v : highest;
    position[k] = std::bit_cast<int64_t>(v) - magic;
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
  std::fill(out->keep, out->keep + (size + 7) / 8, uint8_t{0});
  int64_t m = 0;
  for (int64_t k = 0; k < size; ++k) {  // without branches: the count advances or it does not
    out->position[m] = position[k];
    out->keep[k / 8] |= static_cast<uint8_t>(keep[k] << (k % 8));
    m += keep[k];
  }
  out->size = m;
  return nan;
}

}  // namespace

#ifdef __x86_64__
// What GCC's own headers leave uninitialised on purpose.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#define ALRP_AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq")))

namespace {

const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");

__mmask8 first(int64_t count) { return static_cast<__mmask8>(count < 8 ? (1u << count) - 1 : 0xffu); }

ALRP_AVX512
bool quantise_avx512(const float* scores, const Mark* marks, int64_t size, const Quantiser& q,
                     Quantised* out) {
  const __m512d scale = _mm512_set1_pd(q.scale), offset = _mm512_set1_pd(q.offset + kMagic);
  const __m512d lowest = _mm512_set1_pd(biased(q.lowest)), highest = _mm512_set1_pd(biased(q.highest));
  const __m512i magic = _mm512_castpd_si512(_mm512_set1_pd(kMagic));
  int64_t m = 0;
  unsigned nan = 0;
  for (int64_t k = 0; k < size; k += 8) {
    const __mmask8 live = first(size - k);
    const __m256 s = _mm256_maskz_loadu_ps(live, scores + k);
    const __m128i mark = _mm_maskz_loadu_epi8(live, marks + k);
    const auto negative = static_cast<__mmask8>(_mm_mask_cmpeq_epi8_mask(live, mark, _mm_setzero_si128()));
    nan |= _mm256_mask_cmp_ps_mask(negative, s, s, _CMP_UNORD_Q);
    __m512d v = _mm512_fmadd_pd(_mm512_cvtps_pd(s), scale, offset);
    v = _mm512_min_pd(v, highest);  // of NaN: highest; whoever is NaN spoils every result anyway
    const __mmask8 keep = _mm512_mask_cmp_pd_mask(negative, v, lowest, _CMP_GT_OQ);
    const __m512i position = _mm512_sub_epi64(_mm512_castpd_si512(v), magic);
    // Compressed in a register and stored whole: the compressing store is slow on some CPUs.
    _mm512_storeu_si512(out->position + m, _mm512_maskz_compress_epi64(keep, position));
    out->keep[k / 8] = keep;
    m += __builtin_popcount(keep);
  }
  out->size = m;
  return nan != 0;
}

ALRP_AVX512
void expand_avx512(const float* dense, const uint8_t* keep, int64_t size, float* out) {
  for (int64_t k = 0; k < size; k += 8) {
    const __m256 values = _mm256_maskz_expand_ps(keep[k / 8], _mm256_loadu_ps(dense));
    _mm256_mask_storeu_ps(out + k, first(size - k), values);
    dense += __builtin_popcount(keep[k / 8]);
  }
}

// Records of four elements: their first and their second words. Four loads of 16 bytes; a gather is slower.
ALRP_AVX512
inline void load_records(const Record* records, const int32_t* segment, __m256i* from, __m256i* line) {
  const auto at = [&](int k) { return reinterpret_cast<const __m128i*>(records + segment[k]); };
  const __m256i even =
      _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(at(0))), _mm_loadu_si128(at(2)), 1);
  const __m256i odd =
      _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(at(1))), _mm_loadu_si128(at(3)), 1);
  *from = _mm256_unpacklo_epi64(even, odd);
  *line = _mm256_unpackhi_epi64(even, odd);
}

ALRP_AVX512
void evaluate_avx512(const Record* records, float per_step, const int64_t* position, const int32_t* segment,
                     int64_t size, float* value) {
  const __m128 scale = _mm_set1_ps(per_step);
  for (int64_t k = 0; k < size; k += 4) {  // segments beyond the size are 0: see Grid::segments
    __m256i from, line;
    load_records(records, segment + k, &from, &line);
    const __m256i offset =
        _mm256_sub_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(position + k)), from);
    const __m128 base = _mm_castsi128_ps(_mm256_cvtepi64_epi32(line));
    const __m128 slope = _mm_castsi128_ps(_mm256_cvtepi64_epi32(_mm256_srli_epi64(line, 32)));
    _mm_storeu_ps(value + k,
                  _mm_add_ps(base, _mm_mul_ps(slope, _mm_mul_ps(_mm256_cvtepi64_ps(offset), scale))));
  }
}

}  // namespace

ALRP_AVX512
void Grid::segments_avx512(const int64_t* position, int64_t size, int32_t* segment) const {
  const auto* entries = reinterpret_cast<const int*>(entries_.data());
  const __m512i lowest = _mm512_set1_epi64(lowest_);
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(mask_));
  const __m128i coarse = _mm_cvtsi32_si128(coarse_), shift = _mm_cvtsi32_si128(shift_);
  for (int64_t k = 0; k < size; k += 8) {
    const __mmask8 live = first(size - k);
    const __m512i x = _mm512_maskz_loadu_epi64(live, position + k);
    const __m256i y =
        _mm512_cvtepi64_epi32(_mm512_maskz_srl_epi64(live, _mm512_sub_epi64(x, lowest), coarse));
    const __m256i sum = _mm256_add_epi32(y, _mm256_i32gather_epi32(entries, _mm256_srl_epi32(y, shift), 4));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(segment + k), _mm256_maskz_srl_epi32(live, sum, shift));
    unsigned rare = live & (static_cast<unsigned>(_mm256_movepi32_mask(sum)) |
                            static_cast<unsigned>(_mm256_testn_epi32_mask(sum, mask)));
    for (; rare; rare &= rare - 1) {
      const int64_t at = k + __builtin_ctz(rare);
      segment[at] = look_up(position[at]);
    }
  }
}
#endif

void Grid::segments(const int64_t* position, int64_t size, int32_t* segment) const {
#ifdef __x86_64__
  if (has_avx512) return segments_avx512(position, size, segment);
#endif
  for (int64_t k = 0; k < size; ++k) segment[k] = look_up(position[k]);
}

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

void expand(const float* dense, const uint8_t* keep, int64_t size, float* out) {
#ifdef __x86_64__
  if (has_avx512) return expand_avx512(dense, keep, size, out);
#endif
  int64_t m = 0;
  for (int64_t k = 0; k < size; ++k) {
    const bool kept = keep[k / 8] >> (k % 8) & 1;
    out[k] = kept ? dense[m] : 0.0f;
    m += kept;
  }
}

void evaluate(const Record* records, float per_step, const int64_t* position, const int32_t* segment,
              int64_t size, float* value) {
#ifdef __x86_64__
  if (has_avx512) return evaluate_avx512(records, per_step, position, segment, size, value);
#endif
  for (int64_t k = 0; k < size; ++k) {
    const Record& r = records[segment[k]];
    value[k] = r.base + r.slope * (static_cast<float>(position[k] - r.from) * per_step);
  }
}

}  // namespace alrp::cpu

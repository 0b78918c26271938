// The streaming loops in AVX-512: vectors of sixteen.
#include "next_block.h"

#ifdef ALRP_AVX512

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "blocks.h"

// What GCC's own headers leave uninitialised on purpose.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#define ALRP_LEVEL ALRP_AVX512
#define ALRP_F16C
#include "plain_loops.h"

namespace alrp::cpu {
namespace {

__mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count < kLanes ? (1u << count) - 1 : 0xffffu);
}

// Lanes that a loop leaves for later: it notes sixteen at a time, and they are visited after it. In the loop
// itself each would cost a mispredicted branch, between loads that have to run ahead.
class RareLanes {
 public:
  void note(int64_t k, __mmask16 lanes) { lanes_[k / kLanes] = lanes; }

  // f(k) for each lane that was noted of `size`. They are listed first, so that their number is mispredicted
  // once, and not for every sixteen.
  template <typename F>
  ALRP_AVX512 void visit(int64_t size, const F& f) const {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int32_t listed[kBlockLogits + kLanes];
    int64_t count = 0;
    for (int64_t begin = 0; begin < size; begin += kGroups * kLanes) {
      const int64_t groups = std::min(kGroups, (size - begin + kLanes - 1) / kLanes);
      const __m512i noted = _mm512_load_si512(lanes_ + begin / kLanes);
      uint32_t any = _mm512_mask_test_epi16_mask(~uint32_t{0} >> (kGroups - groups), noted, noted);
      for (; any; any &= any - 1) {
        const auto k = static_cast<int32_t>(begin + std::countr_zero(any) * kLanes);
        const __mmask16 lanes = lanes_[k / kLanes];
        const __m512i at = _mm512_add_epi32(lane, _mm512_set1_epi32(k));
        _mm512_storeu_si512(listed + count, _mm512_maskz_compress_epi32(lanes, at));
        count += std::popcount(static_cast<unsigned>(lanes));
      }
    }
    for (int64_t r = 0; r < count; ++r) f(listed[r]);
  }

 private:
  static constexpr int64_t kGroups = 32;  // of lanes, looked at once
  static_assert(kBlockLogits % (kGroups * kLanes) == 0);
  alignas(64) __mmask16 lanes_[kBlockLogits / kLanes];
};

// Sixteen numbers of 32 bits in memory, read two at a time: the loops that use them are bound by loads.
class PairedLoads {
 public:
  explicit PairedLoads(const void* from) { std::memcpy(pairs_, from, sizeof(pairs_)); }

  uint32_t even(int64_t k) const { return static_cast<uint32_t>(pairs_[k / 2]); }
  uint32_t odd(int64_t k) const { return static_cast<uint32_t>(pairs_[k / 2] >> 32); }  // the (k + 1)-th

 private:
  uint64_t pairs_[kLanes / 2];
};

// As Ends::search.
ALRP_AVX512
inline int32_t search(const Ends& ends, int32_t known, float score) {
  static_assert(Ends::kStep == 4);
  const __mmask8 more = _mm_cmp_ps_mask(_mm_loadu_ps(ends.from(known)), _mm_set1_ps(score), _CMP_LE_OQ);
  return more == 0xf ? ends.search_far(known, score) : known + std::popcount(static_cast<unsigned>(more));
}

// Cells::place of sixteen scores.
ALRP_AVX512
inline __m512i places(const Cells& cells, __m512 score) {
  const __m512 offset = _mm512_sub_ps(score, _mm512_set1_ps(cells.below));
  return _mm512_or_si512(_mm512_cvttps_epi32(_mm512_mul_ps(offset, _mm512_set1_ps(cells.scale))),
                         _mm512_set1_epi32(1));
}

ALRP_AVX512
int64_t select(const float* scores, int64_t size, const Range& range, Selected* out) {
  const __m512 below = _mm512_set1_ps(range.below), lowest = _mm512_set1_ps(range.lowest),
               highest = _mm512_set1_ps(range.highest);
  const bool in_place = out->in_place;  // not to be read again after what the loop stores
  out->next_scores = scores + kBlockLogits;
  const NextBlock next(*out);
  int64_t m = 0, nan = 0;
  const auto visit = [&](int64_t k, __mmask16 live) ALRP_AVX512 __attribute__((always_inline)) {
    if (!in_place) next.fetch(k);
    const __m512 s = _mm512_maskz_loadu_ps(live, scores + k);
    nan += std::popcount(static_cast<unsigned>(_mm512_cmp_ps_mask(s, s, _CMP_UNORD_Q)));
    const __mmask16 keep = _mm512_mask_cmp_ps_mask(live, s, lowest, _CMP_GE_OQ);
    const __m512 limited = _mm512_mask_min_ps(below, keep, s, highest);
    if (in_place) {
      _mm512_store_ps(out->score + k, limited);
    } else {
      // Compressed in a register and stored whole: the compressing store is slow on some CPUs.
      _mm512_storeu_ps(out->score + m, _mm512_mask_compress_ps(below, keep, limited));
      out->keep[k / kLanes] = keep;
    }
    m += std::popcount(static_cast<unsigned>(keep));
  };
  int64_t k = 0;
  for (; k + kLanes <= size; k += kLanes) visit(k, 0xffff);
  if (k < size) visit(k, first_lanes(size - k));
  if (!in_place) {
    _mm512_storeu_ps(out->score + m, below);
    out->next_scores = out->score;  // fetched above: the loops over few scores would not get far
  }
  out->size = in_place ? size : m;
  out->matter = m;
  return nan;
}

ALRP_AVX512
void look_up_segments(const SegmentTable& table, const Selected& selected, int32_t* segment) {
  const float* const score = selected.score;
  const int64_t size = selected.size;
  // Not read again in the loop: a load waits for a recent store to the same place in another page.
  const Cells cells = table.cells;
  const uint32_t* const entries = table.entries.get();
  // A gather into zeros does not wait for what the register held. Knowing the mask, compilers drop the zeros.
  __mmask16 all = 0xffff;
  asm("" : "+k"(all));
  const __m512i mask = _mm512_set1_epi32((1 << table.cells.shift) - 1);
  const __m128i shift = _mm_cvtsi32_si128(table.cells.shift);
  RareLanes rare;
  for (int64_t k = 0; k < size; k += kLanes) {
    const __m512i place = places(cells, _mm512_loadu_ps(score + k));
    const __m512i entry =
        _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), all, _mm512_srl_epi32(place, shift), entries, 4);
    const __m512i sum = _mm512_add_epi32(_mm512_and_si512(place, mask), entry);
    _mm512_storeu_si512(segment + k, _mm512_srl_epi32(sum, shift));
    rare.note(k, static_cast<__mmask16>(_mm512_movepi32_mask(sum) | _mm512_testn_epi32_mask(sum, mask)));
  }
  const auto several = static_cast<int32_t>(SegmentTable::kSeveral >> table.cells.shift);
  rare.visit(size, [&](int64_t k) ALRP_AVX512 __attribute__((always_inline)) {
    segment[k] = search(table.ends, std::max(0, (segment[k] & ~several) - 1), score[k]);
  });
}

ALRP_AVX512
void add_to_bins(const Selected& selected, const int32_t* segment, const Narrow& position,
                 Bin<Narrow::Sum>* bins) {
  const float* const score = selected.score;
  const int64_t size = selected.size;
  const NextBlock next(selected);
  const __m512d scale = _mm512_set1_pd(position.scale),
                offset = _mm512_set1_pd(position.offset + Narrow::kShift);
  const __m512i shift = _mm512_set1_epi64(std::bit_cast<int64_t>(Narrow::kShift)), one = _mm512_set1_epi64(1);
  // What is added to both words of a bin at once, of a run of scores. It goes through memory: extracting
  // words from vector registers would take the ports that additions need.
  constexpr int64_t kRun = 64;
  alignas(64) __m128i more[kRun];
  for (int64_t begin = 0; begin < size; begin += kRun) {
    const int64_t run = std::min(kRun, size - begin);
    for (int64_t k = 0; k < run; k += 8) {
      const __m512d s = _mm512_cvtps_pd(_mm256_loadu_ps(score + begin + k));
      const __m512i shifted = _mm512_castpd_si512(_mm512_fmadd_pd(s, scale, offset));  // as Narrow::of
      const __m512i at = _mm512_sub_epi64(shifted, shift);
      _mm512_store_si512(more + k, _mm512_unpacklo_epi64(at, one));      // scores 0, 2, 4 and 6
      _mm512_store_si512(more + k + 4, _mm512_unpackhi_epi64(at, one));  // 1, 3, 5 and 7
    }
    const auto add = [bins](uint32_t m, __m128i term) ALRP_AVX512 __attribute__((always_inline)) {
      static_assert(sizeof(Bin<Narrow::Sum>) == 16);
      auto* bin = reinterpret_cast<__m128i*>(bins + m);
      _mm_storeu_si128(bin, _mm_add_epi64(_mm_loadu_si128(bin), term));
    };
    const auto term = [](int64_t k) { return k / 8 * 8 + k % 2 * 4 + k % 8 / 2; };  // where it lies
    int64_t k = 0;
    for (; k + kLanes <= run; k += kLanes) {
      next.fetch(begin + k);
      const PairedLoads segments(segment + begin + k);
      const __m128i* const terms = more + k;
#pragma GCC unroll 8
      for (int64_t i = 0; i < kLanes; i += 2) {
        add(segments.even(i), terms[term(i)]);
        add(segments.odd(i), terms[term(i + 1)]);
      }
    }
    for (; k < run; ++k) add(segment[begin + k], more[term(k)]);
  }
}

// Four records of 16 bytes, a quarter each, by their offsets in bytes. Loads; gathers are slower.
ALRP_AVX512
inline __m512 four_records(const char* records, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const auto load = [records](uint32_t offset) ALRP_AVX512 __attribute__((always_inline)) {
    return _mm_load_ps(reinterpret_cast<const float*>(records + offset));
  };
  __m512 row = _mm512_castps128_ps512(load(a));
  row = _mm512_insertf32x4(row, load(b), 1);
  row = _mm512_insertf32x4(row, load(c), 2);
  return _mm512_insertf32x4(row, load(d), 3);
}

ALRP_AVX512
inline __m512 low(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

ALRP_AVX512
inline __m512 high(__m512 a, __m512 b) {
  return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

ALRP_AVX512
void look_up_values(const ValueTable& table, const Selected& selected, float* value) {
  const float* const score = selected.score;
  const int64_t size = selected.size;
  const NextBlock next(selected);
  // The byte offset of each score's record: 16 times its cell, for multiplying by powers of two is exact.
  alignas(64) uint32_t offset[kBlockLogits + kLanes];
  const __m512 scale = _mm512_set1_ps(std::ldexp(table.cells.scale, 4 - table.cells.shift)),
               below = _mm512_set1_ps(table.cells.below);
  for (int64_t k = 0; k < size; k += kLanes) {
    const __m512 bytes = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(score + k), below), scale);
    _mm512_store_si512(offset + k, _mm512_and_si512(_mm512_cvttps_epi32(bytes), _mm512_set1_epi32(~15)));
  }

  static_assert(sizeof(ValueTable::Record) == 4 * sizeof(float));
  const auto* records = reinterpret_cast<const char*>(table.records.get());
  const __m512 per_step = _mm512_set1_ps(table.per_step);
  RareLanes rare;
  for (int64_t k = 0; k < size; k += kLanes) {
    next.fetch(k);
    const PairedLoads at(offset + k);
    const __m512 a = four_records(records, at.even(0), at.even(4), at.even(8), at.even(12)),
                 b = four_records(records, at.odd(0), at.odd(4), at.odd(8), at.odd(12)),
                 c = four_records(records, at.even(2), at.even(6), at.even(10), at.even(14)),
                 d = four_records(records, at.odd(2), at.odd(6), at.odd(10), at.odd(14));
    const __m512 ab = _mm512_unpacklo_ps(a, b), cd = _mm512_unpacklo_ps(c, d);
    const __m512 slopes_ab = _mm512_unpackhi_ps(a, b), slopes_cd = _mm512_unpackhi_ps(c, d);
    const __m512 end = low(ab, cd), base = high(ab, cd), slope_below = low(slopes_ab, slopes_cd),
                 slope_above = high(slopes_ab, slopes_cd);
    const __m512 steps = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(score + k), end), per_step);
    // By the sign bit: where steps are -0, either slope gives the base.
    const __m512 slope =
        _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(steps)), slope_above, slope_below);
    const __m512 result = _mm512_add_ps(base, _mm512_mul_ps(slope, steps));
    _mm512_storeu_ps(value + k, result);
    rare.note(k, _mm512_cmp_ps_mask(result, result, _CMP_UNORD_Q));
  }
  rare.visit(size, [&](int64_t k) ALRP_AVX512 __attribute__((always_inline)) {
    value[k] = table.on_line(
        search(table.ends, table.records[offset[k] / sizeof(ValueTable::Record)].known(), score[k]),
        score[k]);
  });
}

ALRP_AVX512
void write_values(const Selected& selected, const float* value, int64_t size, bool stream, float* out) {
  for (int64_t k = 0; k < size; k += kLanes) {
    __m512 values;
    if (selected.in_place) {
      values = _mm512_loadu_ps(value + k);
    } else {
      const unsigned keep = selected.keep[k / kLanes];
      values = _mm512_maskz_expand_ps(static_cast<__mmask16>(keep), _mm512_loadu_ps(value));
      value += std::popcount(keep);
    }
    if (size - k < kLanes)
      _mm512_mask_storeu_ps(out + k, first_lanes(size - k), values);
    else if (stream)
      _mm512_stream_ps(out + k, values);
    else
      _mm512_storeu_ps(out + k, values);
  }
}

void fence() { _mm_sfence(); }

}  // namespace

constinit const Loops Loops::avx512{
    kPlainLoops,       cpu::select, cpu::look_up_segments, cpu::add_to_bins, cpu::look_up_values,
    cpu::write_values, cpu::fence,
};

}  // namespace alrp::cpu

#endif

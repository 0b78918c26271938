// The streaming loops in AVX2: vectors of eight. Gathers are slower here than loads one by one.
#include "next_block.h"

#ifdef ALRP_AVX2

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#define ALRP_LEVEL ALRP_AVX2
#define ALRP_F16C
#include "plain_loops.h"

namespace alrp::cpu {
namespace {

#define ALRP_INLINE ALRP_AVX2 __attribute__((always_inline)) inline

constexpr int64_t kEight = 8;

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

// Lanes that a loop leaves for later: it notes eight at a time, and they are visited after it.
class RareLanes {
 public:
  ALRP_INLINE void note(int64_t k, __m256 lanes) {
    lanes_[k / kEight] = static_cast<uint8_t>(_mm256_movemask_ps(lanes));
  }

  // f(k) for each lane that was noted of `size`. They are listed first.
  template <typename F>
  ALRP_INLINE void visit(int64_t size, const F& f) {
    constexpr int64_t kWord = 64;  // lanes in a word
    std::memset(lanes_ + (size + kEight - 1) / kEight, 0, kWord / kEight);
    int16_t listed[kBlockLogits + kLanes];
    int64_t count = 0;
    for (int64_t begin = 0; begin < size; begin += kWord) {
      uint64_t word;
      std::memcpy(&word, lanes_ + begin / kEight, sizeof(word));
      for (; word; word &= word - 1) listed[count++] = static_cast<int16_t>(begin + std::countr_zero(word));
    }
    for (int64_t r = 0; r < count; ++r) f(listed[r]);
  }

 private:
  alignas(64) uint8_t lanes_[kBlockLogits / kEight + kEight];
};

// Eight numbers of 32 bits in memory, read two at a time.
class PairedLoads {
 public:
  // Pair by pair: one copy of all would go through memory once more.
  ALRP_INLINE explicit PairedLoads(const uint32_t* from) {
    for (int64_t k = 0; k < kEight / 2; ++k) std::memcpy(pairs_ + k, from + 2 * k, sizeof(uint64_t));
  }

  ALRP_INLINE uint32_t operator[](int64_t k) const {
    return static_cast<uint32_t>(k % 2 ? pairs_[k / 2] >> 32 : pairs_[k / 2]);
  }

 private:
  uint64_t pairs_[kEight / 2];
};

// As Ends::search.
ALRP_INLINE int32_t search(const Ends& ends, int32_t known, float score) {
  static_assert(Ends::kStep == 4);
  const __m128 more = _mm_cmple_ps(_mm_loadu_ps(ends.from(known)), _mm_set1_ps(score));
  const int mask = _mm_movemask_ps(more);
  return mask == 0xf ? ends.search_far(known, score) : known + std::popcount(static_cast<unsigned>(mask));
}

// Cells::place of eight scores.
ALRP_INLINE __m256i places(const Cells& cells, __m256 score) {
  const __m256 offset = _mm256_sub_ps(score, _mm256_set1_ps(cells.below));
  return _mm256_or_si256(_mm256_cvttps_epi32(_mm256_mul_ps(offset, _mm256_set1_ps(cells.scale))),
                         _mm256_set1_epi32(1));
}

ALRP_INLINE int64_t sum(__m256i of) {
  alignas(32) int32_t lanes[kEight];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), of);
  return std::accumulate(lanes, lanes + kEight, int64_t{0});
}

template <bool kInPlace>
ALRP_AVX2 int64_t select_as(const float* scores, int64_t size, const Range& range, Selected* out) {
  const __m256 below = _mm256_set1_ps(range.below), lowest = _mm256_set1_ps(range.lowest),
               highest = _mm256_set1_ps(range.highest);
  auto* const keeps = reinterpret_cast<uint8_t*>(out->keep);
  out->next_scores = scores + kBlockLogits;
  const NextBlock next(*out);
  __m256i nan = _mm256_setzero_si256(), kept = nan;  // minus how many; kept where in place
  int64_t m = 0;
  const auto visit = [&](int64_t k, const float* score) ALRP_AVX2 __attribute__((always_inline)) {
    if (!kInPlace && k % kLanes == 0) next.fetch(k);
    const __m256 s = _mm256_loadu_ps(score);
    nan = _mm256_add_epi32(nan, _mm256_castps_si256(_mm256_cmp_ps(s, s, _CMP_UNORD_Q)));
    const __m256 keep = _mm256_cmp_ps(s, lowest, _CMP_GE_OQ);
    const __m256 limited = _mm256_min_ps(s, highest);
    if constexpr (kInPlace) {
      _mm256_store_ps(out->score + k, _mm256_blendv_ps(below, limited, keep));
      kept = _mm256_add_epi32(kept, _mm256_castps_si256(keep));
    } else {
      const auto mask = static_cast<unsigned>(_mm256_movemask_ps(keep));
      _mm256_storeu_ps(out->score + m,
                       _mm256_permutevar8x32_ps(limited, widened(kMoves.compress[mask].data())));
      keeps[k / kEight] = static_cast<uint8_t>(mask);
      m += std::popcount(mask);
    }
  };
  int64_t k = 0;
  for (; k + kEight <= size; k += kEight) visit(k, scores + k);
  if (k < size) {
    float last[kEight];
    std::fill_n(last, kEight, -std::numeric_limits<float>::infinity());  // below all
    std::copy(scores + k, scores + size, last);
    visit(k, last);
  }
  if constexpr (kInPlace) {
    m = -sum(kept);
  } else {
    _mm256_storeu_ps(out->score + m, below);
    out->next_scores = out->score;  // fetched above: the loops over few scores would not get far
  }
  out->size = kInPlace ? size : m;
  out->matter = m;
  return -sum(nan);
}

int64_t select(const float* scores, int64_t size, const Range& range, Selected* out) {
  return (out->in_place ? select_as<true> : select_as<false>)(scores, size, range, out);
}

ALRP_AVX2
void look_up_segments(const SegmentTable& table, const Selected& selected, int32_t* segment) {
  const float* const score = selected.score;
  const int64_t size = selected.size;
  const Cells cells = table.cells;
  const uint32_t* const entries = table.entries.get();
  const __m256i mask = _mm256_set1_epi32((1 << cells.shift) - 1);
  const __m128i shift = _mm_cvtsi32_si128(cells.shift);
  alignas(64) uint32_t cell[kBlockLogits + kLanes];
  for (int64_t k = 0; k < size; k += kEight)
    _mm256_store_si256(reinterpret_cast<__m256i*>(cell + k),
                       _mm256_srl_epi32(places(cells, _mm256_loadu_ps(score + k)), shift));
  RareLanes rare;
  for (int64_t k = 0; k < size; k += kEight) {
    const __m256i place = places(cells, _mm256_loadu_ps(score + k));
    const PairedLoads at(cell + k);
    const auto entry_of = [&](int64_t i) ALRP_AVX2
        __attribute__((always_inline)) { return static_cast<int32_t>(entries[at[i]]); };
    const __m256i entry = _mm256_setr_epi32(entry_of(0), entry_of(1), entry_of(2), entry_of(3), entry_of(4),
                                            entry_of(5), entry_of(6), entry_of(7));
    const __m256i sum = _mm256_add_epi32(_mm256_and_si256(place, mask), entry);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(segment + k), _mm256_srl_epi32(sum, shift));
    const __m256i on_end = _mm256_cmpeq_epi32(_mm256_and_si256(sum, mask), _mm256_setzero_si256());
    rare.note(k, _mm256_castsi256_ps(_mm256_or_si256(sum, on_end)));
  }
  const auto several = static_cast<int32_t>(0x80000000u >> cells.shift);
  rare.visit(size, [&](int64_t k) ALRP_AVX2 __attribute__((always_inline)) {
    segment[k] = search(table.ends, std::max(0, (segment[k] & ~several) - 1), score[k]);
  });
}

ALRP_AVX2
void add_to_bins(const Selected& selected, const int32_t* segment, const Narrow& position,
                 Bin<Narrow::Sum>* bins) {
  const float* const score = selected.score;
  const int64_t size = selected.size;
  const __m256d scale = _mm256_set1_pd(position.scale),
                offset = _mm256_set1_pd(position.offset + Narrow::kShift);
  const __m256i shift = _mm256_set1_epi64x(std::bit_cast<int64_t>(Narrow::kShift)),
                one = _mm256_set1_epi64x(1);
  const auto add = [bins](uint32_t m, __m128i term) ALRP_AVX2 __attribute__((always_inline)) {
    static_assert(sizeof(Bin<Narrow::Sum>) == 16);
    auto* bin = reinterpret_cast<__m128i*>(bins + m);
    _mm_storeu_si128(bin, _mm_add_epi64(_mm_loadu_si128(bin), term));
  };
  // What is added to both words of a bin at once, of four scores from k on. By memory it takes longer.
  struct Addends {
    __m256i even, odd;  // scores 0 and 2, 1 and 3
  };
  const auto terms = [&](int64_t k) ALRP_AVX2 __attribute__((always_inline)) {
    const __m256d s = _mm256_cvtps_pd(_mm_loadu_ps(score + k));
    const __m256i shifted = _mm256_castpd_si256(_mm256_fmadd_pd(s, scale, offset));  // as Narrow::of
    const __m256i at = _mm256_sub_epi64(shifted, shift);
    return Addends{_mm256_unpacklo_epi64(at, one), _mm256_unpackhi_epi64(at, one)};
  };
  int64_t k = 0;
  const NextBlock next(selected);
  for (; k + kEight <= size; k += kEight) {
    if (k % kLanes == 0) next.fetch(k);
    const PairedLoads segments(reinterpret_cast<const uint32_t*>(segment) + k);
#pragma GCC unroll 2
    for (int64_t i = 0; i < kEight; i += 4) {
      const auto [even, odd] = terms(k + i);
      add(segments[i], _mm256_castsi256_si128(even));
      add(segments[i + 1], _mm256_castsi256_si128(odd));
      add(segments[i + 2], _mm256_extracti128_si256(even, 1));
      add(segments[i + 3], _mm256_extracti128_si256(odd, 1));
    }
  }
  for (; k < size; ++k) add(static_cast<uint32_t>(segment[k]), _mm256_castsi256_si128(terms(k).even));
}

// Two records of 16 bytes, a half each, by their offsets in bytes.
ALRP_INLINE __m256 two_records(const char* records, uint32_t a, uint32_t b) {
  const auto* first = reinterpret_cast<const float*>(records + a);
  const auto* second = reinterpret_cast<const float*>(records + b);
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_load_ps(first)), _mm_load_ps(second), 1);
}

ALRP_INLINE __m256 low(__m256 a, __m256 b) {
  return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
}

ALRP_INLINE __m256 high(__m256 a, __m256 b) {
  return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
}

ALRP_AVX2
void look_up_values(const ValueTable& table, const Selected& selected, float* value) {
  const float* const score = selected.score;
  const int64_t size = selected.size;
  const NextBlock next(selected);
  // The byte offset of each score's record: 16 times its cell, for multiplying by powers of two is exact.
  alignas(64) uint32_t offset[kBlockLogits + kLanes];
  const __m256 scale = _mm256_set1_ps(std::ldexp(table.cells.scale, 4 - table.cells.shift)),
               below = _mm256_set1_ps(table.cells.below);
  for (int64_t k = 0; k < size; k += kEight) {
    const __m256 bytes = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(score + k), below), scale);
    _mm256_store_si256(reinterpret_cast<__m256i*>(offset + k),
                       _mm256_and_si256(_mm256_cvttps_epi32(bytes), _mm256_set1_epi32(~15)));
  }

  static_assert(sizeof(ValueTable::Record) == 4 * sizeof(float));
  const auto* records = reinterpret_cast<const char*>(table.records.get());
  const __m256 per_step = _mm256_set1_ps(table.per_step);
  RareLanes rare;
  for (int64_t k = 0; k < size; k += kEight) {
    if (k % kLanes == 0) next.fetch(k);
    const PairedLoads at(offset + k);
    const __m256 a = two_records(records, at[0], at[4]), b = two_records(records, at[1], at[5]),
                 c = two_records(records, at[2], at[6]), d = two_records(records, at[3], at[7]);
    const __m256 ab = _mm256_unpacklo_ps(a, b), cd = _mm256_unpacklo_ps(c, d);
    const __m256 slopes_ab = _mm256_unpackhi_ps(a, b), slopes_cd = _mm256_unpackhi_ps(c, d);
    const __m256 end = low(ab, cd), base = high(ab, cd), slope_below = low(slopes_ab, slopes_cd),
                 slope_above = high(slopes_ab, slopes_cd);
    const __m256 steps = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(score + k), end), per_step);
    // By the sign bit: where steps are -0, either slope gives the base.
    const __m256 slope = _mm256_blendv_ps(slope_above, slope_below, steps);
    const __m256 result = _mm256_add_ps(base, _mm256_mul_ps(slope, steps));
    _mm256_storeu_ps(value + k, result);
    rare.note(k, _mm256_cmp_ps(result, result, _CMP_UNORD_Q));
  }
  rare.visit(size, [&](int64_t k) ALRP_AVX2 __attribute__((always_inline)) {
    value[k] = table.on_line(
        search(table.ends, table.records[offset[k] / sizeof(ValueTable::Record)].known(), score[k]),
        score[k]);
  });
}

ALRP_AVX2
void write_values(const Selected& selected, const float* value, int64_t size, bool stream, float* out) {
  const auto* const keeps = reinterpret_cast<const uint8_t*>(selected.keep);
  const auto values = [&](int64_t k) ALRP_AVX2 __attribute__((always_inline)) {
    if (selected.in_place) return _mm256_loadu_ps(value + k);
    const unsigned keep = keeps[k / kEight];
    const __m256i from = widened(kMoves.expand[keep].data());
    const __m256 moved = _mm256_permutevar8x32_ps(_mm256_loadu_ps(value), from);
    value += std::popcount(keep);
    return _mm256_blendv_ps(moved, _mm256_setzero_ps(), _mm256_castsi256_ps(from));
  };
  int64_t k = 0;
  if (stream)
    for (; k + kEight <= size; k += kEight) _mm256_stream_ps(out + k, values(k));
  else
    for (; k + kEight <= size; k += kEight) _mm256_storeu_ps(out + k, values(k));
  if (k < size) {
    alignas(32) float last[kEight];
    _mm256_store_ps(last, values(k));
    std::copy(last, last + size - k, out + k);
  }
}

void fence() { _mm_sfence(); }

}  // namespace

constinit const Loops Loops::avx2{
    kPlainLoops,       cpu::select, cpu::look_up_segments, cpu::add_to_bins, cpu::look_up_values,
    cpu::write_values, cpu::fence,
};

}  // namespace alrp::cpu

#endif

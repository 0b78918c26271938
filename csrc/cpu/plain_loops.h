// Loops that compilers vectorise by themselves, for one level of CPU. Each of loops*.cpp includes this once,
// after it has defined
//   ALRP_LEVEL   the attribute of functions of its level; nothing for every CPU
//   ALRP_F16C    where that level converts float16, which compilers do not use by themselves
// Unnamed, so that the linker takes no level's functions for another's.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <type_traits>

#include "loops.h"

#ifdef ALRP_F16C
#include <immintrin.h>
#endif

namespace alrp::cpu {
namespace {

ALRP_LEVEL void count_rows(const double* columns, int64_t m, const double* rows, Step h, double* sums) {
  double acc[kRowTile] = {};
  for (int64_t j = 0; j < m; ++j)
    for (int i = 0; i < kRowTile; ++i) acc[i] += step(h, columns[j], rows[i]);
  for (int i = 0; i < kRowTile; ++i) sums[i] += acc[i];
}

ALRP_LEVEL void sum_rows(const double* columns, const double* weights, int64_t m, const double* rows, Step h,
                         double* sums) {
  double acc[kRowTile] = {};
  for (int64_t j = 0; j < m; ++j)
    for (int i = 0; i < kRowTile; ++i) acc[i] += weighted(step(h, columns[j], rows[i]), weights[j]);
  for (int i = 0; i < kRowTile; ++i) sums[i] += acc[i];
}

ALRP_LEVEL void sum_columns(const double* columns, int64_t m, const double* rows, const double* weights,
                            int64_t r, Step h, double* sums) {
  constexpr int kUnroll = 4;  // rows a turn: a load and a store of the sum serve four pairs
  int64_t i = 0;
  for (; i + kUnroll <= r; i += kUnroll)
    for (int64_t j = 0; j < m; ++j) {
      double add = 0;
      for (int u = 0; u < kUnroll; ++u) add += weighted(step(h, columns[j], rows[i + u]), weights[i + u]);
      sums[j] += add;
    }
  for (; i < r; ++i)
    for (int64_t j = 0; j < m; ++j) sums[j] += weighted(step(h, columns[j], rows[i]), weights[i]);
}

template <typename Bits>
ALRP_LEVEL void marks_of(const Labels& labels, int64_t begin, int64_t size, Mark* marks) {
  const Bits* bits = static_cast<const Bits*>(labels.data) + begin;
  const auto least = static_cast<Bits>(labels.least), span = static_cast<Bits>(labels.span),
             infinity = static_cast<Bits>(labels.infinity);
  const auto sign = static_cast<Bits>(Bits{1} << (8 * sizeof(Bits) - 1));
  const auto is_signed = static_cast<Bits>(labels.is_signed ? sign : 0);
  for (int64_t k = 0; k < size; ++k) {
    const Bits b = bits[k], magnitude = b & static_cast<Bits>(~sign);
    const bool ignored = (b & is_signed) != 0 && (infinity == 0 || magnitude <= infinity);
    const bool positive = static_cast<Bits>(b - least) <= span;
    const bool minus_zero = infinity != 0 && b == sign;
    const int mark = ignored ? static_cast<int>(Mark::kIgnored) : static_cast<int>(Mark::kInvalid);
    marks[k] = static_cast<Mark>(b == 0 || minus_zero ? 0 : (positive ? 1 : mark));
  }
}

ALRP_LEVEL void flat_marks(const Labels& labels, int64_t begin, int64_t size, Mark* marks) {
  switch (labels.bytes) {
    case 1:
      return marks_of<uint8_t>(labels, begin, size, marks);
    case 2:
      return marks_of<uint16_t>(labels, begin, size, marks);
    case 4:
      return marks_of<uint32_t>(labels, begin, size, marks);
    default:
      return marks_of<uint64_t>(labels, begin, size, marks);
  }
}

template <typename From, typename To>
ALRP_LEVEL void convert(const From* from, int64_t size, To* to) {
  int64_t k = 0;
#ifdef ALRP_F16C
  constexpr int64_t kHalves = 8;  // at once
  if constexpr (std::is_same_v<From, c10::Half>)
    for (; k + kHalves <= size; k += kHalves)
      _mm256_storeu_ps(to + k, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + k))));
  if constexpr (std::is_same_v<To, c10::Half>)
    for (; k + kHalves <= size; k += kHalves)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + k),
                       _mm256_cvtps_ph(_mm256_loadu_ps(from + k), _MM_FROUND_TO_NEAREST_INT));
#endif
  for (; k < size; ++k) to[k] = static_cast<To>(from[k]);
}

constexpr PlainLoops kPlainLoops{
    count_rows, sum_rows, sum_columns, flat_marks, convert, convert, convert, convert,
};

}  // namespace
}  // namespace alrp::cpu

// What PTX instructions compute, on raw bits: registers hold no types.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

typedef unsigned __int128 u128;
typedef __int128 s128;
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define NEVER_INLINE __attribute__((noinline))

// ---- bits and numbers

ALWAYS_INLINE float as_f32(uint32_t x) {
  float f;
  memcpy(&f, &x, 4);
  return f;
}
ALWAYS_INLINE double as_f64(uint64_t x) {
  double f;
  memcpy(&f, &x, 8);
  return f;
}
ALWAYS_INLINE uint32_t to_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
ALWAYS_INLINE uint64_t to_bits(double x) {
  uint64_t u;
  memcpy(&u, &x, 8);
  return u;
}

// Subnormals to zero of the same sign (.ftz).
ALWAYS_INLINE float flush(float x) {
  return (to_bits(x) & 0x7f800000u) == 0 ? as_f32(to_bits(x) & 0x80000000u) : x;
}
ALWAYS_INLINE double flush(double x) {
  return (to_bits(x) & 0x7ff0000000000000ull) == 0 ? as_f64(to_bits(x) & 0x8000000000000000ull) : x;
}
ALWAYS_INLINE uint16_t flush_half(uint16_t x) { return x & 0x7c00 ? x : x & 0x8000; }
ALWAYS_INLINE uint16_t flush_bfloat(uint16_t x) { return x & 0x7f80 ? x : x & 0x8000; }

// To [0, 1]; NaN becomes 0 (.sat).
template <class T>
ALWAYS_INLINE T saturate(T x) {
  return x > 0 ? (x < 1 ? x : (T)1) : (T)0;
}
ALWAYS_INLINE uint16_t saturate_half(uint16_t x, uint16_t one) {
  return x == 0x7fff || (x & 0x8000) ? 0 : x > one ? one : x;
}

// A NaN result of an f32 operation is 0x7fffffff; f64 passes payloads on.
ALWAYS_INLINE float canonical(float x) { return x != x ? as_f32(0x7fffffffu) : x; }

// Negative results to zero. After rounding: NaN is 0x7fff by then and stays (.relu).
ALWAYS_INLINE uint16_t relu_half(uint16_t x) { return x & 0x8000 ? 0 : x; }

// The result of approximate f64 functions has a low word of zero.
ALWAYS_INLINE double high_word(double x) { return as_f64(to_bits(x) & 0xffffffff00000000ull); }

// ---- directed rounding: never inlined, with volatile operands, so that no operation leaves the window
//      in which the mode is set

enum RoundingMode { TO_NEAREST = 0, DOWNWARD = 1, UPWARD = 2, TOWARD_ZERO = 3 };

class WithRounding {
 public:
  explicit WithRounding(unsigned mode) : saved_(_mm_getcsr()) {
    _mm_setcsr((saved_ & ~0x6000u) | mode << 13);
  }
  ~WithRounding() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
};

ALWAYS_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
ALWAYS_INLINE double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }

#define ROUNDED(name, expression)           \
  template <RoundingMode MODE, class T>     \
  NEVER_INLINE T name(T x, T y, T z) {      \
    volatile T a = x, b = y, c = z, result; \
    {                                       \
      WithRounding mode(MODE);              \
      result = expression;                  \
    }                                       \
    (void)b, (void)c;                       \
    return result;                          \
  }
ROUNDED(rounded_add, a + b)
ROUNDED(rounded_sub, a - b)
ROUNDED(rounded_mul, a* b)
ROUNDED(rounded_div, a / b)
ROUNDED(rounded_fma, fused((T)a, (T)b, (T)c))
ROUNDED(rounded_sqrt, (T)std::sqrt((T)a))
#undef ROUNDED

template <RoundingMode MODE>
NEVER_INLINE float rounded_f64_to_f32(double x) {
  volatile double a = x;
  volatile float result;
  {
    WithRounding mode(MODE);
    result = (float)a;
  }
  return result;
}
template <RoundingMode MODE, class To, class From>
NEVER_INLINE To rounded_integer_to_float(From x) {
  volatile From a = x;
  volatile To result;
  {
    WithRounding mode(MODE);
    result = (To)a;
  }
  return result;
}

// ---- half precision and bfloat16

ALWAYS_INLINE float half_to_f32(uint16_t x) { return _cvtsh_ss(x); }
ALWAYS_INLINE float bfloat_to_f32(uint16_t x) { return as_f32((uint32_t)x << 16); }
ALWAYS_INLINE uint16_t f32_to_half(float x) { return x != x ? 0x7fff : _cvtss_sh(x, 0); }
ALWAYS_INLINE uint16_t f32_to_half_rm(float x) { return x != x ? 0x7fff : _cvtss_sh(x, 1); }
ALWAYS_INLINE uint16_t f32_to_half_rp(float x) { return x != x ? 0x7fff : _cvtss_sh(x, 2); }
ALWAYS_INLINE uint16_t f32_to_half_rz(float x) { return x != x ? 0x7fff : _cvtss_sh(x, 3); }
ALWAYS_INLINE uint16_t f32_to_bfloat(float x) {
  const uint32_t u = to_bits(x);
  return x != x ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
ALWAYS_INLINE uint16_t f32_to_bfloat_rz(float x) { return x != x ? 0x7fff : to_bits(x) >> 16; }
ALWAYS_INLINE uint16_t f32_to_bfloat_rm(float x) {
  const uint32_t u = to_bits(x);
  return x != x ? 0x7fff : (u >> 16) + ((u >> 31) && (u & 0xffff));
}
ALWAYS_INLINE uint16_t f32_to_bfloat_rp(float x) {
  const uint32_t u = to_bits(x);
  return x != x ? 0x7fff : (u >> 16) + (!(u >> 31) && (u & 0xffff));
}
ALWAYS_INLINE uint32_t f32_to_tf32(float x) {
  const uint32_t u = to_bits(x);
  if (x != x) return 0x7fffffffu;
  return (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & 0xffffe000u;
}

// Rounding to odd: inexact results get an odd last bit, so that rounding once more gives what one
// rounding of the exact value would.
static inline double toward_odd(double rounded, bool exact, bool error_is_positive) {
  uint64_t u = to_bits(rounded);
  if (!exact && !(u & 1)) u += error_is_positive == (rounded > 0) ? 1 : -1;
  return as_f64(u);
}
static inline double add_odd(double a, double b) {
  const double sum = a + b;
  if (!std::isfinite(sum)) return sum;
  const double b_part = sum - a;
  const double error = (a - (sum - b_part)) + (b - b_part);
  return toward_odd(sum, error == 0, error > 0);
}
template <class I>
static inline double integer_to_f64_odd(I x) {
  const double d = (double)x;
  const s128 error = (s128)x - (s128)d;
  return toward_odd(d, error == 0, error > 0);
}
static inline float f64_to_f32_odd(double d) {
  const float f = (float)d;
  if (std::isinf(f) && std::isfinite(d)) return copysignf(as_f32(0x7f7fffffu), f);
  if ((double)f == d || d != d || std::isinf(f)) return f;
  uint32_t u = to_bits(f);
  if (std::fabs((double)f) > std::fabs(d)) u--;
  return as_f32(u | 1);
}
ALWAYS_INLINE uint16_t half_fma(uint16_t a, uint16_t b, uint16_t c) {
  return f32_to_half(f64_to_f32_odd(add_odd((double)half_to_f32(a) * half_to_f32(b), half_to_f32(c))));
}
ALWAYS_INLINE uint16_t bfloat_fma(uint16_t a, uint16_t b, uint16_t c) {
  return f32_to_bfloat(
      f64_to_f32_odd(add_odd((double)bfloat_to_f32(a) * bfloat_to_f32(b), bfloat_to_f32(c))));
}

// ---- minimum, maximum, division

// NaN loses against a number; -0 is below +0.
template <class T>
ALWAYS_INLINE T float_min(T a, T b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;
}
template <class T>
ALWAYS_INLINE T float_max(T a, T b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? b : a;
  return a > b ? a : b;
}
// .NaN: NaN wins
template <class T>
ALWAYS_INLINE T float_min_nan(T a, T b) {
  return a != a || b != b ? (T)NAN : float_min(a, b);
}
template <class T>
ALWAYS_INLINE T float_max_nan(T a, T b) {
  return a != a || b != b ? (T)NAN : float_max(a, b);
}
// .xorsign: the sign is the exclusive or of the inputs' signs
template <class T>
ALWAYS_INLINE T exclusive_sign(T magnitude, T a, T b) {
  return magnitude == magnitude && std::signbit(a) != std::signbit(b) ? -magnitude : magnitude;
}

// div.approx.f32: 0 where the divisor's magnitude is above 2^126 (PTX ISA 9.7.3.8), NaN for infinity there
ALWAYS_INLINE float approximate_divide(float a, float b) {
  const float divisor = fabsf(b);
  if (divisor > 0x1p126f && divisor <= 0x1.fffffep127f) {
    if (!(fabsf(a) <= 0x1.fffffep127f)) return NAN;
    return as_f32((to_bits(a) ^ to_bits(b)) & 0x80000000u);
  }
  return a / b;
}

// An integral floating-point value, clamped to the range of I.
template <class I, class F>
ALWAYS_INLINE I to_integer(F x, I nan = 0) {
  if (x != x) return nan;
  const F lowest = (F)std::numeric_limits<I>::min();
  const F beyond = std::ldexp((F)1, std::numeric_limits<I>::digits);
  if (x <= lowest) return std::numeric_limits<I>::min();
  return x >= beyond ? std::numeric_limits<I>::max() : (I)x;
}

// ---- integers and bits

template <class U>
ALWAYS_INLINE U shift_left(U a, uint32_t n) {
  return n >= sizeof(U) * 8 ? 0 : (U)(a << n);
}
template <class U>
ALWAYS_INLINE U shift_right(U a, uint32_t n) {
  return n >= sizeof(U) * 8 ? (a < 0 ? (U)-1 : (U)0) : (U)(a >> n);
}
ALWAYS_INLINE uint32_t funnel_shift_left(uint32_t a, uint32_t b, uint32_t n) {
  return n == 0 ? b : n == 32 ? a : (b << n) | (a >> (32 - n));
}
ALWAYS_INLINE uint32_t funnel_shift_right(uint32_t a, uint32_t b, uint32_t n) {
  return n == 0 ? a : n == 32 ? b : (b << (32 - n)) | (a >> n);
}

// prmt: four selectors of four bits; the top bit replicates the sign of the selected byte
ALWAYS_INLINE uint32_t permute(uint32_t a, uint32_t b, uint32_t selectors) {
  const uint64_t bytes = (uint64_t)b << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; i++) {
    const uint32_t selector = selectors >> (4 * i) & 15;
    uint32_t byte = bytes >> (8 * (selector & 7)) & 255;
    if (selector & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << (8 * i);
  }
  return result;
}
enum PermuteMode { PERMUTE_F4E, PERMUTE_B4E, PERMUTE_RC8, PERMUTE_ECL, PERMUTE_ECR, PERMUTE_RC16 };
template <PermuteMode MODE>
ALWAYS_INLINE uint32_t permute_selector(uint32_t c) {
  static const uint16_t table[6][4] = {{0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123},
                                       {0x0000, 0x1111, 0x2222, 0x3333}, {0x3210, 0x3211, 0x3222, 0x3333},
                                       {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232}};
  return table[MODE][c & 3];
}

// lop3: bit i of `table` is the result for the inputs whose bits spell i
ALWAYS_INLINE uint32_t lookup_3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
  uint32_t result = 0;
  if (table & 1) result |= ~a & ~b & ~c;
  if (table & 2) result |= ~a & ~b & c;
  if (table & 4) result |= ~a & b & ~c;
  if (table & 8) result |= ~a & b & c;
  if (table & 16) result |= a & ~b & ~c;
  if (table & 32) result |= a & ~b & c;
  if (table & 64) result |= a & b & ~c;
  if (table & 128) result |= a & b & c;
  return result;
}

template <class U>
ALWAYS_INLINE U low_bits(uint32_t count) {
  return count >= sizeof(U) * 8 ? (U)-1 : (U)(((U)1 << count) - 1);
}

// bfe: beyond the field, and beyond the operand, the field's sign bit is repeated
template <class U, class S>
ALWAYS_INLINE U extract_bits(S a, uint32_t position, uint32_t length) {
  const uint32_t width = sizeof(S) * 8;
  position &= 255;
  length &= 255;
  if (length == 0) return 0;
  const U bits = (U)a;
  const bool sign =
      std::numeric_limits<S>::is_signed && (bits >> std::min(position + length - 1, width - 1) & 1);
  const U field = low_bits<U>(std::min(length, width - std::min(position, width)));
  const U value = position < width ? bits >> position & field : 0;
  return sign ? value | (U)~field : value;
}
template <class U>
ALWAYS_INLINE U insert_bits(U a, U b, uint32_t position, uint32_t length) {
  position &= 255;
  length &= 255;
  if (position >= sizeof(U) * 8) return b;
  const U field = (U)(low_bits<U>(length) << position);
  return (U)(a << position & field) | (U)(b & ~field);
}
template <class S>
ALWAYS_INLINE uint32_t find_top_bit(S a, bool shift_amount) {
  typedef typename std::make_unsigned<S>::type U;
  U u = (U)a;
  if (std::numeric_limits<S>::is_signed && a < 0) u = ~u;
  const int top = sizeof(S) * 8 - 1;
  for (int i = top; i >= 0; i--)
    if (u >> i & 1) return shift_amount ? top - i : i;
  return 0xffffffffu;
}
ALWAYS_INLINE uint32_t bit_mask(uint32_t start, uint32_t count, bool clamp) {
  if (clamp && start >= 32) return 0;
  start &= 31;
  count = clamp ? std::min(count, 32u) : count & 31;
  return (uint32_t)(((1ull << count) - 1) << start);
}
ALWAYS_INLINE uint32_t extend(uint32_t a, uint32_t width, bool clamp, bool is_signed) {
  width = clamp ? std::min(width, 32u) : width & 31;
  if (width == 0) return 0;
  if (width == 32) return a;
  const uint32_t mask = (1u << width) - 1;
  return is_signed && (a >> (width - 1) & 1) ? a | ~mask : a & mask;
}
ALWAYS_INLINE uint32_t find_nth_set(uint32_t mask, int32_t base, int32_t offset) {
  if (offset == 0) return base >= 0 && base < 32 && (mask >> base & 1) ? (uint32_t)base : ~0u;
  int64_t left = std::llabs((long long)offset) - 1;
  for (int64_t i = base; i >= 0 && i < 32; i += offset > 0 ? 1 : -1)
    if ((mask >> i & 1) && left-- == 0) return (uint32_t)i;
  return ~0u;
}
template <class U>
ALWAYS_INLINE U reverse_bits(U a) {
  U result = 0;
  for (unsigned i = 0; i < sizeof(U) * 8; i++) result |= (a >> i & 1) << (sizeof(U) * 8 - 1 - i);
  return result;
}
ALWAYS_INLINE uint32_t leading_zeros(uint32_t a) { return a ? __builtin_clz(a) : 32; }
ALWAYS_INLINE uint32_t leading_zeros(uint64_t a) { return a ? __builtin_clzll(a) : 64; }

// The streaming loops in NEON, which every 64-bit Arm CPU has: two vectors of four. It has no gathers, and no masks
// outside its vectors: lanes are moved half by half, by tables of 16.
#include "loops.h"

#ifdef ALRP_NEON

#include <arm_neon.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#define ALRP_LEVEL
#define ALRP_VECTOR_BYTES 16
#include "plain_loops.h"
#include "vectors.h"

namespace alrp::cpu {
namespace {

// Permutations of the 16 bytes of four lanes for tbl, by the mask of the lanes that are kept.
struct Moves {
  // compress[mask]: from the lane that comes k-th. expand[mask]: from the value for lane k, or from none, which
  // gives 0. count[mask]: lanes.
  alignas(64) std::array<std::array<uint8_t, 16>, 16> compress{}, expand{};
  std::array<uint8_t, 16> count{};

  constexpr Moves() {
    for (int mask = 0; mask < 16; ++mask) {
      expand[mask].fill(0xff);
      int m = 0;
      for (int k = 0; k < 4; ++k) {
        if (!(mask >> k & 1)) continue;
        for (int byte = 0; byte < 4; ++byte) {
          compress[mask][4 * m + byte] = static_cast<uint8_t>(4 * k + byte);
          expand[mask][4 * k + byte] = static_cast<uint8_t>(4 * m + byte);
        }
        ++m;
      }
      count[mask] = static_cast<uint8_t>(m);
    }
  }
};

constexpr Moves kMoves;

ALRP_INLINE float32x4_t moved(const float32x4_t& from, const std::array<uint8_t, 16>& bytes) {
  return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(from), vld1q_u8(bytes.data())));
}

ALRP_INLINE unsigned bits(const Ints& mask) {
  static constexpr uint16_t kBits[kEight] = {1, 2, 4, 8, 16, 32, 64, 128};
  // The upper half of each lane.
  const int16x8_t signs =
      vuzp2q_s16(vreinterpretq_s16_s32(mask.part[0]), vreinterpretq_s16_s32(mask.part[1]));
  return vaddvq_u16(vandq_u16(vcltzq_s16(signs), vld1q_u16(kBits)));
}

ALRP_INLINE Floats least(const Floats& a, const Floats& b) {
  return {{vminq_f32(a.part[0], b.part[0]), vminq_f32(a.part[1], b.part[1])}};
}

ALRP_INLINE Floats by_sign(const Floats& sign, const Floats& a, const Floats& b) {
  return {{vbslq_f32(vcltzq_f32(sign.part[0]), a.part[0], b.part[0]),
           vbslq_f32(vcltzq_f32(sign.part[1]), a.part[1], b.part[1])}};
}

ALRP_INLINE int64_t compress(const Floats& from, unsigned bits, float* to) {
  const unsigned low = bits & 0xf, high = bits >> 4;
  vst1q_f32(to, moved(from.part[0], kMoves.compress[low]));
  vst1q_f32(to + kMoves.count[low], moved(from.part[1], kMoves.compress[high]));
  return kMoves.count[low] + kMoves.count[high];
}

ALRP_INLINE Floats expand(unsigned bits, const float** from) {
  const unsigned low = bits & 0xf, high = bits >> 4;
  const float32x4_t first = moved(vld1q_f32(*from), kMoves.expand[low]);
  *from += kMoves.count[low];
  const float32x4_t second = moved(vld1q_f32(*from), kMoves.expand[high]);
  *from += kMoves.count[high];
  return {{first, second}};
}

ALRP_INLINE int32_t at_most(const float* four, float score) {
  return -vaddvq_s32(vreinterpretq_s32_u32(vcleq_f32(vld1q_f32(four), vdupq_n_f32(score))));
}

ALRP_INLINE Bits gather(const uint32_t* entries, const Indices& at) {
  return {{uint32x4_t{entries[at[0]], entries[at[1]], entries[at[2]], entries[at[3]]},
           uint32x4_t{entries[at[4]], entries[at[5]], entries[at[6]], entries[at[7]]}}};
}

struct Fields {
  Floats end, base, slope_below, slope_above;
};

ALRP_INLINE float32x4_t low(float32x4_t a, float32x4_t b) {
  return vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

ALRP_INLINE float32x4_t high(float32x4_t a, float32x4_t b) {
  return vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

ALRP_INLINE Fields gather_records(const void* records, const Indices& at) {
  Fields fields;
  for (int p = 0; p < Floats::kParts; ++p) {
    const auto record = [&](int64_t k) __attribute__((always_inline)) {
      return vld1q_f32(reinterpret_cast<const float*>(static_cast<const char*>(records) + at[4 * p + k]));
    };
    const float32x4_t a = record(0), b = record(1), c = record(2), d = record(3);
    const float32x4_t ab = vzip1q_f32(a, b), cd = vzip1q_f32(c, d);
    const float32x4_t slopes_ab = vzip2q_f32(a, b), slopes_cd = vzip2q_f32(c, d);
    fields.end.part[p] = low(ab, cd);
    fields.base.part[p] = high(ab, cd);
    fields.slope_below.part[p] = low(slopes_ab, slopes_cd);
    fields.slope_above.part[p] = high(slopes_ab, slopes_cd);
  }
  return fields;
}

class Terms {
 public:
  ALRP_INLINE explicit Terms(const Narrow& position)
      : scale_(vdupq_n_f64(position.scale)), offset_(vdupq_n_f64(position.offset + Narrow::kShift)) {}

  ALRP_INLINE FourTerms of(const float* four) const {
    const float32x4_t s = vld1q_f32(four);
    FourTerms result;
    two(vcvt_f64_f32(vget_low_f32(s)), result.term);
    two(vcvt_high_f64_f32(s), result.term + 2);
    return result;
  }

 private:
  ALRP_INLINE void two(float64x2_t s, Term* to) const {
    const uint64x2_t shift = vdupq_n_u64(std::bit_cast<uint64_t>(Narrow::kShift)), one = vdupq_n_u64(1);
    const uint64x2_t at =
        vsubq_u64(vreinterpretq_u64_f64(vfmaq_f64(offset_, s, scale_)), shift);  // as Narrow::of
    to[0] = vzip1q_u64(at, one);
    to[1] = vzip2q_u64(at, one);
  }

  float64x2_t scale_, offset_;
};

// Such stores come in pairs, and not as an intrinsic.
ALRP_INLINE void stream(float* to, const Floats& floats) { store(to, floats); }

void fence() {}

}  // namespace
}  // namespace alrp::cpu

#include "vector_loops.h"

namespace alrp::cpu {

constinit const Loops Loops::neon{
    kPlainLoops,       cpu::select, cpu::look_up_segments, cpu::add_to_bins, cpu::look_up_values,
    cpu::write_values, cpu::fence,
};

}  // namespace alrp::cpu

#endif

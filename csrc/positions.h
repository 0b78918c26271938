// Scores as integer positions, the coordinates in which the sorted algorithm compares and sums exactly; for
// the host and for devices.
//
// A position is a fixed-point number with 2 delta = 2 half units, so a step is 0 up to KL = x_i - half, 1
// from KR = x_i + half, and linear between. Integer sums do not depend on their order: results are bitwise
// the same for every number of threads and every permutation of the negatives. Two forms:
//   Narrow  int64, one linear map for all scores: 2 delta is about 2^33 units. For scores of at most 32 bits
//           whose positives span at most 2^15 times 2 delta and lie within 2^16 times 2 delta of 0.
//   Wide    __int128, 2 delta is at least 2^62 units, for everything else. Positives are grouped in clusters
//           whose steps do not touch; distances between clusters do not matter and are cut short, so that any
//           spread of scores, infinities and delta = 0 fit.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "step.h"

namespace alrp {

__extension__ typedef __int128 int128;
__extension__ typedef unsigned __int128 uint128;

ALRP_HD bool is_finite(double x) { return x - x == 0; }

// The power of two that brings delta > 0 to [2^(bits-1), 2^bits).
ALRP_HD int exponent_for(double delta, int bits) { return bits - 1 - ilogb(delta); }

struct Narrow {
  using Int = int64_t;
  using Sum = uint64_t;  // wraps around: only differences below 2^63 are read

  double scale;   // position = round(score * scale + offset): a power of two,
  double offset;  // and an integer, which brings the lowest positive near 0. The product is exact; the sum is
                  // rounded once
  Int half;

  // Bits of delta in units: sums of n offsets up to 2 delta stay below 2^63.
  ALRP_HD static int bits(int64_t n) {
    int bits = 33;
    while (bits > 1 && (int64_t{1} << (61 - bits)) < n) --bits;
    return bits;
  }

  // Whether positives from `lowest` to `highest` fit, for n logits and this delta.
  ALRP_HD static bool fits(double lowest, double highest, int64_t n, double delta) {
    constexpr double kMostSteps = 1 << 15;     // span of the positives, in 2 delta
    constexpr double kMostDistance = 1 << 16;  // of the lowest one from 0, likewise
    // Knots and 1 / (2 delta) are floats too.
    constexpr double kLeastDelta = FLT_MIN, kMostKnot = FLT_MAX / 4;
    return delta >= kLeastDelta && n < (int64_t{1} << 40) && lowest - delta > -kMostKnot &&
           highest + delta < kMostKnot && highest - lowest <= kMostSteps * 2 * delta &&
           fabs(lowest) <= kMostDistance * 2 * delta;
  }

  ALRP_HD static Narrow make(double lowest, int64_t n, double delta) {
    const double scale = ldexp(1.0, exponent_for(delta, bits(n)));
    return {scale, -rint(lowest * scale), static_cast<Int>(rint(delta * scale))};
  }

  // The integer of a double near kShift, in whose low bits it lies: read there, it takes no call and no instruction
  // that few CPUs have, and loops over it become vector instructions. For integers below 2^51, as positions are.
  static constexpr double kShift = 0x1.8p52;

  ALRP_HD static Int shifted(double near_shift) {
    constexpr Int kBits = 0x4338000000000000;  // of kShift
    Int bits;
    memcpy(&bits, &near_shift, sizeof(bits));
    return bits - kBits;
  }

  ALRP_HD Int of(double score) const { return shifted(score * scale + (offset + kShift)); }
};

// Neighbouring positives of Wide whose steps may touch; they share an origin. `offset` is its position.
struct Cluster {
  double from;    // scores from here on belong to this cluster or a later one
  double origin;  // lowest positive
  int128 offset;
  int128 width;  // from the lowest to the highest positive
};

struct Wide {
  using Int = int128;
  using Sum = uint128;

  const Cluster* clusters;  // ascending
  int64_t count;
  int exponent;  // units are 2^-exponent
  Int half;

  // Without clusters: enough for units().
  ALRP_HD static Wide make(double delta) {
    const int exponent = delta > 0 ? exponent_for(delta, 62) : 0;
    return {nullptr, 0, exponent, delta > 0 ? static_cast<Int>(ldexp(delta, exponent)) : 0};
  }

  // Whether two neighbouring positives belong to one cluster; ties join, infinite ones too.
  ALRP_HD static bool joins(double below, double above, double delta) {
    return above == below || above - below <= 4 * delta;
  }

  // Where a cluster begins: between the two, at least 2 delta from the steps of either.
  ALRP_HD static double from_between(double below, double above, double delta) {
    const double low = below > -DBL_MAX ? below : -DBL_MAX;
    return delta > 0 && is_finite(above) ? low / 2 + above / 2 : above;
  }

  // Positions that a cluster takes up.
  ALRP_HD Int room(Int width) const { return width + 4 * half + 2; }

  // (score - origin) in units. The difference of two doubles needs two: what rounding dropped is added.
  ALRP_HD Int units(double origin, double score) const {
    if (score == origin) return 0;
    const double difference = score - origin;
    const double virtual_origin =
        difference - score;  // minus the origin that the rounded difference stands for
    const double dropped = (score - (difference - virtual_origin)) - (origin + virtual_origin);
    const Int whole = static_cast<Int>(ldexp(difference, exponent));
    return is_finite(dropped) ? whole + static_cast<Int>(ldexp(dropped, exponent)) : whole;
  }

  ALRP_HD Int of(double score) const {
    int64_t first = 0, last = count - 1;  // the last cluster from which on the score lies
    while (first < last) {
      const int64_t middle = (first + last + 1) / 2;
      if (clusters[middle].from <= score)
        first = middle;
      else
        last = middle - 1;
    }
    const Cluster cluster = clusters[first];
    if (score == cluster.origin) return cluster.offset;
    // delta = 0: H jumps at the origin
    if (half == 0) return score < cluster.origin ? cluster.offset - 1 : cluster.offset;
    // Beyond the steps of the cluster the distance does not matter; limited before it is scaled, it cannot
    // overflow.
    const Int below = -half - 1, above = cluster.width + half + 1;
    const double difference = ldexp(score - cluster.origin, exponent);
    if (!(difference > static_cast<double>(below))) return cluster.offset + below;
    if (!(difference < static_cast<double>(above))) return cluster.offset + above;
    const Int distance = units(cluster.origin, score);
    return cluster.offset + (distance < below ? below : (distance > above ? above : distance));
  }
};

// What falls in a segment between knots: how many, and the sum of their positions modulo the width of Sum.
template <typename Sum>
struct Bin {
  Sum positions;
  uint64_t count;
};

template <typename Sum>
ALRP_HD Bin<Sum> operator+(const Bin<Sum>& a, const Bin<Sum>& b) {
  return {a.positions + b.positions, a.count + b.count};
}

template <typename Sum>
ALRP_HD Bin<Sum> operator-(const Bin<Sum>& a, const Bin<Sum>& b) {
  return {a.positions - b.positions, a.count - b.count};
}

// A bin as words that processes add up as int64, each by itself: three limbs of the sum of positions and the count.
// A limb has 48 bits, so that those of 2^15 processes add up without a carry.
constexpr int kBinWords = 4;
constexpr int kLimbBits = 48;

template <typename Sum>
ALRP_HD void to_words(const Bin<Sum>& bin, int64_t* words) {
  constexpr auto kLimb = (uint64_t{1} << kLimbBits) - 1;
  const uint128 sum = bin.positions;
  words[0] = static_cast<int64_t>(static_cast<uint64_t>(sum) & kLimb);
  words[1] = static_cast<int64_t>(static_cast<uint64_t>(sum >> kLimbBits) & kLimb);
  words[2] = static_cast<int64_t>(static_cast<uint64_t>(sum >> 2 * kLimbBits));
  words[3] = static_cast<int64_t>(bin.count);
}

template <typename Sum>
ALRP_HD Bin<Sum> from_words(const int64_t* words) {
  const uint128 sum = static_cast<uint128>(words[0]) + (static_cast<uint128>(words[1]) << kLimbBits) +
                      (static_cast<uint128>(words[2]) << 2 * kLimbBits);
  return {static_cast<Sum>(sum), static_cast<uint64_t>(words[3])};
}

// sum of clamp((x - KL) / width, 0, 1) over the binned x, exact but for the last division. `begin` and `end`
// sum up the bins below the ramp and below its end, `total` counts all.
template <typename Int, typename Sum>
ALRP_HD double count_of(const Bin<Sum>& begin, const Bin<Sum>& end, uint64_t total, Int left, Int half) {
  const auto whole = static_cast<double>(total - end.count);
  if (begin.count == end.count) return whole;
  // Wraps around to the true sum, which fits: count times the width at the most.
  const Sum offsets =
      end.positions - begin.positions - static_cast<Sum>(end.count - begin.count) * static_cast<Sum>(left);
  return whole + static_cast<double>(offsets) / static_cast<double>(2 * half);
}

}  // namespace alrp

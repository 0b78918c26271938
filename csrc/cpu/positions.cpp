#include "positions.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace alrp::cpu {
namespace {

// Bits of delta in units: sums of n offsets up to 2 delta stay below 2^63.
int narrow_bits(int64_t n) {
  int bits = 33;
  while (bits > 1 && (int64_t{1} << (61 - bits)) < n) --bits;
  return bits;
}

// The power of two that brings delta to [2^(bits-1), 2^bits).
int exponent_for(double delta, int bits) {
  int exponent;
  std::frexp(delta, &exponent);
  return bits - exponent;
}

constexpr double kMostSteps = 1 << 15;     // span of the positives, in 2 delta, that Narrow takes
constexpr double kMostDistance = 1 << 16;  // of the lowest positive from 0, likewise

}  // namespace

bool Narrow::fits(const double* score, int64_t p, int64_t n, double delta) {
  return delta > 0 && std::abs(exponent_for(delta, narrow_bits(n))) < 900 && std::isfinite(score[0]) &&
         std::isfinite(score[p - 1]) && score[p - 1] - score[0] <= kMostSteps * 2 * delta &&
         std::abs(score[0]) <= kMostDistance * 2 * delta;
}

Narrow::Narrow(const double* score, int64_t, int64_t n, double delta)
    : scale_(std::ldexp(1.0, exponent_for(delta, narrow_bits(n)))),
      offset_(-std::nearbyint(score[0] * scale_)),
      half_(static_cast<Int>(std::nearbyint(delta * scale_))) {}

Wide::Wide(const double* score, int64_t p, double delta) {
  exponent_ = delta > 0 ? exponent_for(delta, 62) : 0;
  half_ = delta > 0 ? static_cast<Int>(std::ldexp(delta, exponent_)) : 0;
  Int offset = 0;
  for (int64_t i = 0; i < p;) {
    int64_t last = i;  // ties join, infinite ones too
    while (last + 1 < p && (score[last + 1] == score[i] || score[last + 1] - score[last] <= 4 * delta))
      ++last;
    double from = -std::numeric_limits<double>::infinity();
    if (i > 0) {
      // Between the clusters, at least 2 delta from the steps of either.
      const double low = std::max(score[i - 1], std::numeric_limits<double>::lowest());
      const double high = score[i];
      from = delta > 0 && std::isfinite(high) ? low / 2 + high / 2 : high;
    }
    const Int width = units(score[i], score[last]);
    clusters_.push_back({from, score[i], offset, width});
    offset += width + 4 * half_ + 2;
    i = last + 1;
  }
}

// (score - origin) in units. The difference of two doubles needs two: what rounding dropped is added.
Wide::Int Wide::units(double origin, double score) const {
  if (score == origin) return 0;
  const double difference = score - origin;
  const double virtual_origin =
      difference - score;  // minus the origin that the rounded difference stands for
  const double dropped = (score - (difference - virtual_origin)) - (origin + virtual_origin);
  const Int whole = static_cast<Int>(std::ldexp(difference, exponent_));
  return std::isfinite(dropped) ? whole + static_cast<Int>(std::ldexp(dropped, exponent_)) : whole;
}

Wide::Int Wide::of(double score) const {
  auto after = std::upper_bound(clusters_.begin(), clusters_.end(), score,
                                [](double s, const Cluster& cluster) { return s < cluster.from; });
  const Cluster& cluster = *(after - 1);
  if (score == cluster.origin) return cluster.offset;
  if (half_ == 0)
    return score < cluster.origin ? cluster.offset - 1 : cluster.offset;  // delta = 0: H jumps at the origin
  // Beyond the steps of the cluster the distance does not matter; limited before it is scaled, it cannot
  // overflow.
  const Int below = -half_ - 1, above = cluster.width + half_ + 1;
  const double difference = std::ldexp(score - cluster.origin, exponent_);
  if (!(difference > static_cast<double>(below))) return cluster.offset + below;
  if (!(difference < static_cast<double>(above))) return cluster.offset + above;
  return cluster.offset + std::clamp(units(cluster.origin, score), below, above);
}

}  // namespace alrp::cpu

#include "wide_segments.h"

#include <cfloat>
#include <cmath>
#include <limits>

#include "../keys.h"

namespace alrp::cpu {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The least score whose position is at or above a knot; NaN if there is none. By doubling steps from a guess.
double end_of(const Wide& position, Wide::Int knot, double guess) {
  const uint64_t lowest = key_of(-kInfinity), highest = key_of(kInfinity);
  const auto is_reached = [&](uint64_t key) { return position.of(score_of(key)) >= knot; };
  if (!is_reached(highest)) return std::numeric_limits<double>::quiet_NaN();
  uint64_t below = lowest, at = key_of(guess);  // `at` will have reached the knot, `below` will not
  if (is_reached(at)) {
    for (uint64_t step = 1;; step *= 2) {
      if (at - lowest < step) {
        if (is_reached(lowest)) return -kInfinity;
        break;
      }
      if (!is_reached(at - step)) {
        below = at - step;
        break;
      }
      at -= step;
    }
  } else {
    below = at;
    at = highest;
    for (uint64_t step = 1; highest - below >= step; step *= 2) {
      if (is_reached(below + step)) {
        at = below + step;
        break;
      }
      below += step;
    }
  }
  while (at - below > 1) {
    const uint64_t middle = below + (at - below) / 2;
    (is_reached(middle) ? at : below) = middle;
  }
  return score_of(at);
}

}  // namespace

WideSegments::WideSegments(const Knots<Int>& knots, const WidePositions& position, const double* score,
                           double delta)
    : position_(position),
      unit_(std::abs(position.exponent) < DBL_MAX_EXP - 1 ? std::ldexp(1.0, position.exponent) : 0),
      ends_(knots.at.size()),
      segments_(knots.segments()) {
  const auto p = static_cast<int64_t>(knots.left.size());
  std::vector<int64_t> begun(knots.segments());  // ramps that begin with a segment, less those that end
  for (int64_t i = 0; i < p; ++i) {
    ends_[knots.left[i]] = end_of(position, knots.at[knots.left[i]], score[i] - delta);
    ends_[knots.right[i]] = end_of(position, knots.at[knots.right[i]], score[i] + delta);
    ++begun[knots.left[i] + 1];
    --begun[knots.right[i] + 1];
  }
  int64_t under_way = 0, i = 0;
  for (int64_t m = 1; m < knots.segments(); ++m) {
    while (i + 1 < p && knots.left[i + 1] < m) ++i;  // the last positive whose ramp has begun
    under_way += begun[m];
    if (!under_way) continue;
    const Cluster& cluster = position.cluster_of(score[i]);
    segments_[m] = {cluster.origin, cluster.offset, cluster.offset - knots.at[m - 1], true};
  }
  reached_ = static_cast<int32_t>(
      std::find_if(ends_.begin(), ends_.end(), [](double end) { return end != end; }) - ends_.begin());
  ends_.insert(ends_.end(), kStep, std::numeric_limits<double>::quiet_NaN());

  lowest_ = std::max(ends_[0], -DBL_MAX);
  const double width = std::min(ends_[reached_ - 1], DBL_MAX) - lowest_;
  scale_ = std::min(static_cast<double>(kCells) / width, DBL_MAX);
  before_.resize(kCells + 1);
  std::vector<int32_t> in_cell(kCells + 1);
  for (int32_t m = 0; m < reached_; ++m) ++in_cell[cell(ends_[m])];
  for (int64_t c = 0; c < kCells; ++c) before_[c + 1] = before_[c] + in_cell[c];
}

}  // namespace alrp::cpu

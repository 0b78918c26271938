// The segments of wide positions, found from scores without their positions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "knots.h"
#include "positions.h"

namespace alrp::cpu {

class WideSegments {
 public:
  using Int = Wide::Int;

  // Of the knots of p ascending scores.
  WideSegments(const Knots<Int>& knots, const WidePositions& position, const double* score, double delta);

  // How many knots the position of a score has reached; 0 for NaN.
  int32_t operator()(double score) const {
    int32_t m = before_[cell(score)];
    const double* next = ends_.data() + m;
    int32_t more = 0;
    for (int32_t k = 0; k < kStep; ++k) more += next[k] <= score;  // without branches: all are compared
    m += more;
    if (more == kStep) m = search(m, score);
    return m;
  }

  // Whether a ramp is under way in a segment. Elsewhere how many scores there are is all that counts.
  bool is_sloped(int32_t m) const { return segments_[m].is_sloped; }

  // The position of a score in such a segment, as position.of() has it.
  Int position(int32_t m, double score) const { return segments_[m].offset + units(m, score); }

  // How far it lies past the knot that the segment begins with; at most 2 half.
  double past_knot(int32_t m, double score) const {
    return static_cast<double>(static_cast<int64_t>(segments_[m].past_knot + units(m, score)));
  }

 private:
  static constexpr int32_t kStep = 4;      // ends compared at once
  static constexpr int64_t kCells = 4096;  // of equal width between the lowest and the highest end

  size_t cell(double score) const {  // ascends with the score; any for NaN
    const double place = std::max(0.0, (score - lowest_) * scale_);
    return static_cast<size_t>(std::min(place, static_cast<double>(kCells)));
  }

  struct Segment {
    double origin = 0;  // of its cluster
    Int offset = 0, past_knot = 0;
    bool is_sloped = false;
  };

  // position_.units(), without its calls.
  Int units(int32_t m, double score) const {
    const double origin = segments_[m].origin;
    if (score == origin || !unit_) return position_.units(origin, score);
    const double difference = score - origin, virtual_origin = difference - score;
    const double dropped = (score - (difference - virtual_origin)) - (origin + virtual_origin);
    return truncated(difference * unit_) + static_cast<int64_t>(dropped * unit_);
  }

  // x below 2^115, without a fraction.
  static Int truncated(double x) {
    const auto high = static_cast<int64_t>(x * 0x1p-52);
    return (Int{high} << 52) + static_cast<int64_t>(x - static_cast<double>(high) * 0x1p52);
  }

  int32_t search(int32_t m, double score) const {
    return static_cast<int32_t>(std::upper_bound(ends_.begin() + m, ends_.begin() + reached_, score) -
                                ends_.begin());
  }

  const WidePositions& position_;
  const double unit_;         // 2^exponent; 0 where that is no double
  std::vector<double> ends_;  // the least score whose position has reached each knot; NaN from `reached_` on
  int32_t reached_;           // knots that a score can reach: not the right one of an infinite positive
  double lowest_, scale_;
  std::vector<int32_t> before_;  // ends below each cell
  std::vector<Segment> segments_;
};

}  // namespace alrp::cpu

// The sorted form for delta = 0, where H jumps from 0 to 1 at the score of a positive: a score's segment is all that
// counts, and where in it the score lies is not.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cstdint>
#include <vector>

#include "../keys.h"
#include "float_layout.h"
#include "ramp_sum.h"

namespace alrp::cpu {

// The scores of positives, which are floats, as integers in their order.
struct Jumps {
  using Int = int64_t;
  using Sum = uint64_t;

  static constexpr Int half = 0;

  Int of(double score) const { return static_cast<Int>(key_of(score) >> kFloatRoom); }

  double score(Int at) const {
    const auto key = static_cast<uint64_t>(at) << kFloatRoom;
    const bool positive = key >> 63;
    return score_of(positive ? key : key | ((uint64_t{1} << kFloatRoom) - 1));
  }
};

inline std::vector<float> ends_of(const Knots<int64_t>& knots, const Jumps& position) {
  std::vector<float> ends(knots.at.size());
  std::transform(knots.at.begin(), knots.at.end(), ends.begin(),
                 [&](int64_t knot) { return static_cast<float>(position.score(knot)); });
  return ends;
}

struct JumpLayout : FloatLayout<Jumps> {
  static bool fits(const Input& input, const double* score) {
    constexpr double kMost = FLT_MAX / 4;  // differences of two are floats too
    return input.logits.dtype != Dtype::kFloat64 && input.delta == 0 && score[0] > -kMost &&
           score[input.p - 1] < kMost;
  }

  JumpLayout(const Input& input, const double* score) : FloatLayout(input, score, Jumps{}, Narrow{0, 0, 0}) {}

  // Writes the gradients of a block: `scale` times the sum of the jumps, whatever the labels.
  auto writer(const RampSum<Int>& ramps, double scale) const {
    std::vector<float> values(ramps.base.size());
    std::transform(ramps.base.begin(), ramps.base.end(), values.begin(),
                   [&](double base) { return static_cast<float>(base * scale); });
    return [this, values, table = SegmentTable(ends(), cells())](Buffer& buffer) {
      loops().look_up_segments(table, buffer.selected, buffer.segment);
      for (int64_t k = 0; k < buffer.selected.size; ++k) buffer.value[k] = values[buffer.segment[k]];
      write(buffer);
    };
  }
};

}  // namespace alrp::cpu

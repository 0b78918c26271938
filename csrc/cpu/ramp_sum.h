// Sums of the ramps of the positives, weighted, as functions of a position: what spread evaluates for the
// negatives, and what the same two products among the positives are made of. O(p) beside sorted knots.
#pragma once

#include <cstdint>
#include <vector>

#include "knots.h"

namespace alrp::cpu {

// sum over i of weight[i] times a ramp of positive i, linear in each segment. The ramp rises,
// clamp((x - KL_i) / (KR_i - KL_i), 0, 1), or falls, clamp((KR_i - x) / (KR_i - KL_i), 0, 1). A sweep over
// the knots starts from 0 at the end where all ramps are 0, so that small values stay precise. Finite
// weights only. `Value` may be a vector of sums.
template <typename Int, typename Value = double, bool kFalls = false>
struct RampSum {
  // Of each segment: base at its knot on the side of 0, slope away from there.
  std::vector<Value> base, slope;

  RampSum(const Knots<Int>& knots, const Value* weight)
      : base(knots.segments(), Value{}), slope(knots.segments(), Value{}) {
    const auto count = static_cast<int64_t>(knots.at.size());
    struct Change {
      Value weight;   // of the sum of the weights whose ramps are under way
      int64_t begun;  // ramps that begin less those that end
    };
    std::vector<Change> changes(count, Change{});
    const std::vector<int32_t>&begin = kFalls ? knots.right : knots.left,
          &end = kFalls ? knots.left : knots.right;
    for (size_t i = 0; i < begin.size(); ++i) {
      changes[begin[i]].weight += weight[i];
      if (!knots.half) continue;  // a jump: it begins and ends in one knot
      changes[end[i]].weight -= weight[i];
      ++changes[begin[i]].begun;
      --changes[end[i]].begun;
    }
    const double per_unit = 1 / static_cast<double>(2 * knots.half);
    constexpr int64_t kNext = kFalls ? -1 : 1;
    int64_t k = kFalls ? count - 1 : 0, under_way = 0;
    Value value{}, rising{}, steepness{};
    Int last = knots.at[k];
    for (int64_t turn = 0; turn < count; ++turn, k += kNext) {
      const int64_t segment = kFalls ? k : k + 1;
      if (knots.half) {
        value += steepness * static_cast<double>(kFalls ? last - knots.at[k] : knots.at[k] - last);
        last = knots.at[k];
        under_way += changes[k].begun;
        rising += changes[k].weight;
        if (!under_way) rising = Value{};  // flat: no rounding is left to grow with the distance
        slope[segment] = steepness = rising * per_unit;
      } else {
        value += changes[k].weight;
      }
      base[segment] = value;
    }
  }

  // At x in a segment: with m knots at or below x where ramps rise, with m below x where they fall.
  Value operator()(const Knots<Int>& knots, Int x, int64_t m) const {
    const int64_t knot = kFalls ? m : m - 1;
    if (knot < 0 || knot == static_cast<int64_t>(knots.at.size())) return Value{};
    return base[m] + slope[m] * static_cast<double>(kFalls ? knots.at[knot] - x : x - knots.at[knot]);
  }
};

}  // namespace alrp::cpu

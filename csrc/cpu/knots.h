// The knots of the step functions of all positives: every column of H is linear between them.
//
// The knots of positive i are KL = x_i - half and KR = x_i + half. Segment m holds the positions x with m
// knots at or below x. P-sized work, shared by both passes and by the products among the positives.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../positions.h"

namespace alrp::cpu {

template <typename Int>
struct Knots {
  std::vector<Int> at;               // ascending, each once
  std::vector<int32_t> left, right;  // of each positive: which knot is its KL, which its KR
  Int half;

  // From ascending positions. A merge without branches: which knot comes next is as good as random.
  Knots(const std::vector<Int>& positions, Int half_width)
      : at(2 * positions.size()), left(positions.size() + 1), right(positions.size() + 1), half(half_width) {
    if (positions.empty()) return;
    const auto p = static_cast<int64_t>(positions.size());
    std::vector<Int> begins(p + 1), ends(p + 1);
    for (int64_t i = 0; i < p; ++i) {
      begins[i] = positions[i] - half;
      ends[i] = positions[i] + half;
    }
    begins[p] = ends[p] = ends[p - 1] + 1;  // after all others
    Int begin = begins[0], end = ends[0], last = begin - 1;
    int64_t l = 0, r = 0, m = -1;  // m: the last knot, which `last` is
    for (int64_t k = 0; k < 2 * p; ++k) {
      const Int next_begin = begins[std::min(l + 1, p)], next_end = ends[r + 1];
      const bool is_begin = begin <= end;
      const Int knot = is_begin ? begin : end;
      m += knot != last;
      at[m] = last = knot;
      left[l] = right[r] = static_cast<int32_t>(m);  // one of the two is set again, by the knot that it is
      begin = is_begin ? next_begin : begin;
      end = is_begin ? end : next_end;
      l += is_begin;
      r += !is_begin;
    }
    at.resize(m + 1);
    left.resize(p);
    right.resize(p);
  }

  int64_t segments() const { return static_cast<int64_t>(at.size()) + 1; }

  int64_t segment(Int x) const { return std::upper_bound(at.begin(), at.end(), x) - at.begin(); }
};

// count: n_fp[i] = sum over the binned x of clamp((x - KL_i) / (KR_i - KL_i), 0, 1), exact but for the last
// division.
template <typename Int, typename Sum>
void count_from_bins(const Knots<Int>& knots, const std::vector<Bin<Sum>>& bins, double* n_fp) {
  std::vector<Bin<Sum>> below(bins.size() + 1);  // below[m]: of the segments before m
  below[0] = {0, 0};
  for (size_t m = 0; m < bins.size(); ++m)
    below[m + 1] = {below[m].positions + bins[m].positions, below[m].count + bins[m].count};
  const uint64_t total = below.back().count;
  for (size_t i = 0; i < knots.left.size(); ++i)
    n_fp[i] = count_of(below[knots.left[i] + 1], below[knots.right[i] + 1], total, knots.at[knots.left[i]],
                       knots.half);
}

// spread: sum over i of weight[i] times a ramp of positive i, as a function of x, linear in each segment. The ramp
// rises, clamp((x - KL_i) / (KR_i - KL_i), 0, 1), or falls, clamp((KR_i - x) / (KR_i - KL_i), 0, 1). A sweep over
// the knots starts from 0 at the end where all ramps are 0, so that small values stay precise. Finite weights only.
// `Value` may be several sums at once.
template <typename Int, typename Value = double, bool kFalls = false>
struct Spread {
  std::vector<Value> base,
      slope;  // of each segment: base at its knot on the side of 0, slope away from there

  Spread(const Knots<Int>& knots, const Value* weight)
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

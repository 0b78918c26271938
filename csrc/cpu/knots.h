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

  // From ascending positions.
  Knots(const std::vector<Int>& positions, Int half_width) : half(half_width) {
    const auto p = static_cast<int64_t>(positions.size());
    at.reserve(2 * p);
    left.resize(p);
    right.resize(p);
    for (int64_t l = 0, r = 0; r < p;) {  // merge; KL of a positive never comes after its KR
      const bool take_left = l < p && positions[l] - half <= positions[r] + half;
      const Int knot = take_left ? positions[l] - half : positions[r] + half;
      if (at.empty() || at.back() != knot) at.push_back(knot);
      (take_left ? left[l++] : right[r++]) = static_cast<int32_t>(at.size()) - 1;
    }
  }

  // Those of the mirrored positions, -x.
  Knots mirrored() const {
    Knots other(half);
    other.at.resize(at.size());
    std::transform(at.rbegin(), at.rend(), other.at.begin(), [](Int knot) { return -knot; });
    const auto place = [last = static_cast<int32_t>(at.size()) - 1](int32_t k) { return last - k; };
    other.left.resize(left.size());
    std::transform(right.rbegin(), right.rend(), other.left.begin(), place);
    other.right.resize(right.size());
    std::transform(left.rbegin(), left.rend(), other.right.begin(), place);
    return other;
  }

  int64_t segments() const { return static_cast<int64_t>(at.size()) + 1; }

  int64_t segment(Int x) const { return std::upper_bound(at.begin(), at.end(), x) - at.begin(); }

 private:
  explicit Knots(Int half_width) : half(half_width) {}
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

// spread: sum over i of weight[i] clamp((x - KL_i) / (KR_i - KL_i), 0, 1) as a function of x, linear in each
// segment: base[m] + slope[m] * (x - knot[m - 1]). It starts from 0 at the lowest knot, so that small values
// stay precise. Finite weights only.
template <typename Int>
struct Spread {
  std::vector<double> base, slope;

  Spread(const Knots<Int>& knots, const double* weight)
      : base(knots.segments(), 0.0), slope(knots.segments(), 0.0) {
    const auto count = static_cast<int64_t>(knots.at.size());
    std::vector<double> change(count, 0.0);  // of the sum of the weights whose ramps are under way
    std::vector<int32_t> begun(count, 0);    // ramps that begin less those that end
    for (size_t i = 0; i < knots.left.size(); ++i) {
      change[knots.left[i]] += weight[i];
      if (!knots.half) continue;  // a jump: it begins and ends in one knot
      change[knots.right[i]] -= weight[i];
      ++begun[knots.left[i]];
      --begun[knots.right[i]];
    }
    const auto width = static_cast<double>(2 * knots.half);
    double value = 0, rising = 0;
    int64_t under_way = 0;
    for (int64_t k = 0; k < count; ++k) {
      if (knots.half) {
        if (k) value += slope[k] * static_cast<double>(knots.at[k] - knots.at[k - 1]);
        under_way += begun[k];
        rising = under_way ? rising + change[k] : 0;  // flat: no rounding is left to grow with the distance
        slope[k + 1] = rising / width;
      } else {
        value += change[k];
      }
      base[k + 1] = value;
    }
  }

  double operator()(const Knots<Int>& knots, Int x, int64_t segment) const {
    if (segment == 0) return 0;
    return base[segment] + slope[segment] * static_cast<double>(x - knots.at[segment - 1]);
  }
};

}  // namespace alrp::cpu

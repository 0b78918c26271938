// The knots of the step functions of all positives: every column of H is linear between them.
//
// The knots of positive i are KL = x_i - half and KR = x_i + half. Segment m holds the positions x with m
// knots at or below x.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace alrp::cpu {

template <typename Int>
struct Knots {
  std::vector<Int> at;               // ascending, each once
  std::vector<int32_t> left, right;  // of each positive: which knot is its KL, which its KR
  Int half;

  // Of p > 0 ascending positions. A merge without branches: which knot comes next is as good as random.
  Knots(const std::vector<Int>& positions, Int half_width)
      : at(2 * positions.size()), left(positions.size() + 1), right(positions.size() + 1), half(half_width) {
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

  // The segments of ascending positions: a merge likewise.
  std::vector<int32_t> segments_of(const std::vector<Int>& positions) const {
    std::vector<int32_t> segments(positions.size());
    size_t m = 0, r = 0;
    while (r < positions.size()) {
      segments[r] = static_cast<int32_t>(m);
      const bool above = m == at.size() || at[m] > positions[r];
      r += above;
      m += !above;
    }
    return segments;
  }
};

}  // namespace alrp::cpu

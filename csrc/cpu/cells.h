// Tables over cells of equal width, in which one look-up finds what a float score needs: its segment, or the
// gradient there. For narrow positions (positions.h).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <vector>

#include "../positions.h"
#include "knots.h"
#include "ramp_sum.h"

namespace alrp::cpu {

// Arrays of scores are read and written in whole vectors: up to kLanes - 1 numbers past their end.
constexpr int64_t kLanes = 16;

// The ends of the segments as floats: the lowest float at or above each knot. `score >= ends[m]` compares a
// float score with knot m, and the difference of a score to an end near it is one of near floats.
std::vector<float> ends_of(const Knots<int64_t>& knots, const Narrow& position);

class Ends {
 public:
  explicit Ends(std::vector<float> ends);

  int32_t size() const { return static_cast<int32_t>(padded_.size()) - kStep; }
  float operator[](int32_t m) const { return padded_[m]; }
  float lowest() const { return padded_[0]; }
  float highest() const { return padded_[size() - 1]; }

  // How many ends are at or below the score, of which that many are known to be.
  int32_t search(int32_t known, float score) const;

  // The same where kStep more are known to be, by halving.
  int32_t search_far(int32_t known, float score) const;

  static constexpr int32_t kStep = 4;  // ends compared at once

  const float* from(int32_t known) const { return padded_.data() + known; }

 private:
  std::vector<float> padded_;  // kStep infinities follow
};

// Cells of equal width over the range of the ends. A score's place is an odd number of 30 bits, monotone in
// the score: every end at or below a score has a place at or below its own. Its upper bits are the cell.
struct Cells {
  // `most` limits the cells: a table finer than there are scores to look up does not pay.
  Cells(const Ends& ends, int64_t most);

  uint32_t place(float score) const {
    return static_cast<uint32_t>(static_cast<int32_t>((score - below) * scale)) | 1;
  }

  // The lowest score to look up, below every end and in a cell of its own; the last end is the highest.
  float below;
  float scale;
  int shift;       // bits of a place within its cell
  uint32_t count;  // of cells
};

// From scores to segments.
//
// sum = (place in its cell) + entry[cell] has the segment above its low `shift` bits: the carry out of the
// low bits is the comparison with the one end that the cell may hold. That is exact where the float before
// the end has another place. Two cases, both rare, are left to a search: a cell with several ends sets the
// top bit, and low bits of 0 say that a score has the place of an end which the float before it has too.
struct SegmentTable {
  SegmentTable(const Ends& ends, const Cells& cells);

  // Marks the entry of a cell with several ends.
  static constexpr uint32_t kSeveral = 0x80000000u;

  const Ends& ends;
  Cells cells;
  std::unique_ptr<uint32_t[]> entries;  // of each cell
};

// From scores to values of a RampSum.
//
// A cell's record has the line below and the line above its one end. Records of cells with several ends, and
// of the few in which that form would round what is small, have a NaN for a base: values that come out NaN
// are looked up again, exactly.
struct ValueTable {
  struct alignas(16) Record {
    float end;  // where the base is NaN: the bits of the number of ends in the cells below
    float base, slope_below, slope_above;

    // How many ends are known to be at or below the scores of this cell, of a record whose value was NaN.
    int32_t known() const { return base == base ? 0 : std::bit_cast<int32_t>(end); }
  };

  // Of `scale` times the sum.
  ValueTable(const Ends& ends, const Cells& cells, const Knots<int64_t>& knots, const Narrow& position,
             const RampSum<int64_t>& ramps, double scale);

  float on_line(int32_t segment, float score) const {
    const float end = *ends.from(std::max(segment - 1, 0));  // the value below all ends is 0 from anywhere
    return base[segment] + slope[segment] * ((score - end) * per_step);
  }

  const Ends& ends;
  Cells cells;
  float per_step;  // 1 / (2 delta)
  // Of each segment: base + slope (score - end) / (2 delta), from the end that it begins with. Slopes are per
  // 2 delta, not per unit of score: a small gradient must not fall among float's subnormal numbers.
  std::vector<float> base, slope;
  std::unique_ptr<Record[]> records;  // of each cell
};

}  // namespace alrp::cpu

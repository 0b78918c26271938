// Tables over cells of equal width, in which one look-up finds what a float score needs: its segment, or the
// gradient there. For narrow positions (positions.h).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <vector>

#include "knots.h"
#include "positions.h"

namespace alrp::cpu {

struct Loops;     // loops.h
struct Selected;  // narrow.h

// Arrays of scores are read and written whole vectors at a time: up to kLanes - 1 more than were asked for.
constexpr int64_t kLanes = 16;

// The ends of the segments as floats: the lowest float at or above each knot. `score >= ends[m]` compares a
// float score with knot m, and the difference of a score to an end near it is one of near floats.
std::vector<float> ends_of(const Knots<int64_t>& knots, const Narrow& position);

// The cells over the range of `ends`, which ascend. A score's place is an odd number of 30 bits, monotone in
// the score: every end at or below a score has a place at or below its own. Its upper bits are the cell.
struct Cells {
  // `most` limits the cells: a table finer than there are scores to look up does not pay.
  Cells(const std::vector<float>& ends, int64_t most);

  uint32_t place(float score) const {
    return static_cast<uint32_t>(static_cast<int32_t>((score - below) * scale)) | 1;
  }

  float
      below;  // a score below every end, in a cell of its own; looked-up scores are from here to the highest
              // end
  float scale;
  int shift;       // bits of a place within its cell
  uint32_t count;  // of cells
};

// The ends, for comparing a score with those of one cell.
class Ends {
 public:
  explicit Ends(const std::vector<float>& ends);

  // How many ends are at or below the score, of which that many are known to be.
  int32_t search(int32_t known, float score) const;

  // The same where kStep more are known to be, by halving.
  int32_t search_far(int32_t known, float score) const;

  static constexpr int32_t kStep = 4;  // ends compared at once

  const float* from(int32_t known) const { return padded_.data() + known; }

 private:
  std::vector<float> padded_;  // kStep infinities follow
};

// From scores to segments.
//
// sum = (place in its cell) + entry[cell] has the segment above its low `shift` bits: the carry out of the low
// bits is the comparison with the one end that the cell may hold. That is exact where the float before the
// end has another place. Two cases, both rare, are left to a search: a cell with several ends sets the top
// bit, and low bits of 0 say that a score has the place of an end which the float before it has too.
class SegmentTable {
 public:
  SegmentTable(const std::vector<float>& ends, const Cells& cells);

  // Segment m has m ends at or below its scores. By one of the loops below.
  void look_up(const float* score, int64_t size, int32_t* segment, const Loops& loops) const;

 private:
  friend struct Loops;

  void look_up_portable(const float* score, int64_t size, int32_t* segment) const;
  void look_up_avx2(const float* score, int64_t size, int32_t* segment) const;
  void look_up_avx512(const float* score, int64_t size, int32_t* segment) const;

  Cells cells_;
  Ends ends_;
  std::unique_ptr<uint32_t[]> entries_;  // of each cell
};

// From scores to values of a Spread.
//
// A cell's record has the line below and the line above its one end. Records of cells with several ends, and
// of the few in which that form would round what is small, have a NaN for a base: values that come out NaN
// are looked up again, exactly.
class ValueTable {
 public:
  ValueTable(const std::vector<float>& ends, const Cells& cells, const Knots<int64_t>& knots,
             const Narrow& position, const Spread<int64_t>& spread, double scale);

  // value[k] = scale times the spread at the k-th selected score.
  void look_up(const Selected& selected, float* value, const Loops& loops) const;

 private:
  friend struct Loops;

  // Of each segment: base + slope (score - end) / (2 delta), from the end that it begins with. Slopes are per step, not
  // per unit of score: a small gradient must not fall among float's subnormal numbers.
  struct Lines {
    std::vector<float> base, slope;
  };

  struct alignas(16) Record {
    float end;  // where the base is NaN: the bits of the number of ends in the cells below
    float base, slope_below, slope_above;

    // How many ends are known to be at or below the scores of this cell, of a record whose value was NaN.
    int32_t known() const { return base == base ? 0 : std::bit_cast<int32_t>(end); }
  };

  void look_up_portable(const Selected& selected, float* value) const;
  void look_up_avx2(const Selected& selected, float* value) const;
  void look_up_avx512(const Selected& selected, float* value) const;

  float on_line(int32_t segment, float score) const {
    const float end = *ends_.from(std::max(segment - 1, 0));  // the value below all ends is 0 from anywhere
    return lines_.base[segment] + lines_.slope[segment] * ((score - end) * per_step_);
  }

  Cells cells_;
  Ends ends_;
  float per_step_;  // 1 / (2 delta)
  Lines lines_;
  std::unique_ptr<Record[]> records_;  // of each cell
};

}  // namespace alrp::cpu

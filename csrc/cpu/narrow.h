// The inner loops of the sorted algorithm on narrow positions: quantise a block of scores, then look each
// one's segment up in a table.
#pragma once

#include <vector>

#include "blocks.h"
#include "knots.h"
#include "positions.h"

namespace alrp::cpu {

// Finds segments by one look-up in a table of cells of equal width over the range of the knots.
//
// With y the coarse position (30 bits) and one addition, sum = y + entry[y >> shift] has the segment above
// its low `shift` bits: the carry out of the low bits is the comparison with the one knot that the cell may
// hold. Two cases, both rare, are left to exact comparison: a cell with several knots sets the top bit, and
// low bits of 0 say that y may lie on a knot.
class Grid {
 public:
  // `most` limits the cells: a table finer than there are scores to look up does not pay.
  Grid(const Knots<int64_t>& knots, int64_t most);

  // Segment of a position from the lowest knot to highest().
  int64_t segment(int64_t x) const {
    const auto y = static_cast<uint32_t>(static_cast<uint64_t>(x - lowest_) >> coarse_);
    const uint32_t sum = y + entries_[y >> shift_];
    if (static_cast<int32_t>(sum) < 0 || !(sum & mask_)) [[unlikely]]
      return compare(x, sum);
    return sum >> shift_;
  }

  // A position above every knot that still has a cell; all positions from here on are alike.
  int64_t highest() const { return highest_; }

 private:
  int64_t compare(int64_t x, uint32_t sum) const;

  const int64_t* knots_;
  int64_t knot_count_;
  int64_t lowest_, highest_;
  int coarse_;  // bits dropped from a position
  int shift_;   // bits of a coarse position within its cell
  uint32_t mask_;
  std::vector<uint32_t> entries_;
};

// Written whole vectors at a time.
constexpr int64_t kSlack = 8;

// The negatives of a block that lie above the lowest knot, dense.
struct Quantised {
  int64_t position[kBlock + kSlack];
  int32_t column[kBlock + kSlack];
  int64_t size;
};

// From scores to positions: round((score - origin) * scale), limited to [lowest, highest].
struct Quantiser {
  double origin, scale, lowest, highest;
};

// The negatives among `size` scores that lie above q.lowest. `nan` is set if a negative is NaN.
void quantise(const float* scores, const Mark* marks, int64_t size, const Quantiser& q, Quantised* out,
              bool* nan);

}  // namespace alrp::cpu

// The inner loops of the sorted algorithm on narrow positions: quantise a block of scores, then look each
// one's segment up in a table.
#pragma once

#include <vector>

#include "blocks.h"
#include "knots.h"
#include "positions.h"

namespace alrp::cpu {

// Dense arrays are read and written whole vectors at a time.
constexpr int64_t kSlack = 8;

// A table of cells of equal width over the range of the knots, in which one look-up finds a segment.
//
// With y the coarse position (30 bits), sum = y + entry[y >> shift] has the segment above its low `shift`
// bits: the carry out of the low bits is the comparison with the one knot that the cell may hold. Two cases,
// both rare, are left to exact comparison: a cell with several knots sets the top bit, and low bits of 0 say
// that y may lie on a knot.
class Grid {
 public:
  // `most` limits the cells: a table finer than there are scores to look up does not pay.
  Grid(const Knots<int64_t>& knots, int64_t most);

  // A position above every knot that still has a cell; all positions from here on are alike.
  int64_t highest() const { return highest_; }

  // Segments of `size` positions from the lowest knot to highest(); up to kSlack more are set to 0.
  void segments(const int64_t* position, int64_t size, int32_t* segment) const;

 private:
  int32_t look_up(int64_t x) const;
  int32_t compare(int64_t x, uint32_t sum) const;
  void segments_avx512(const int64_t* position, int64_t size, int32_t* segment) const;

  const int64_t* knots_;
  int64_t knot_count_;
  int64_t lowest_, highest_;
  int coarse_;  // bits dropped from a position
  int shift_;   // bits of a coarse position within its cell
  uint32_t mask_;
  std::vector<uint32_t> entries_;
};

// The negatives of a block that lie above the lowest knot, dense, and where they come from: bit k % 8 of
// keep[k / 8].
struct Quantised {
  int64_t position[kBlock + kSlack];
  uint8_t keep[kBlock / 8];
  int64_t size;
};

// From scores to positions: round(score * scale + offset), at most highest.
struct Quantiser {
  double scale, offset;
  int64_t lowest, highest;
};

// The negatives (marks of 0) among `size` scores whose position lies above q.lowest. `nan` is set if a
// negative is NaN.
void quantise(const float* scores, const Mark* marks, int64_t size, const Quantiser& q, Quantised* out,
              bool* nan);

// out[k] = the next of `dense` where keep has bit k, else 0: the way back from dense arrays to a block.
void expand(const float* dense, const uint8_t* keep, int64_t size, float* out);

// A Spread in the layout of one look-up: 16 bytes a segment. Slopes are per step, not per unit of position: a
// small gradient must not fall among float's subnormal numbers.
struct Record {
  int64_t from;
  float base, slope;
};

// value[k] = base + slope (position - from) / (2 delta), of the record of each one's segment.
void evaluate(const Record* records, float per_step, const int64_t* position, const int32_t* segment,
              int64_t size, float* value);

}  // namespace alrp::cpu

// The inner loops of the sorted algorithm on narrow positions, over blocks of float scores: select those that
// matter, look each one's segment up in a table, and add it to a bin or evaluate the gradient there.
#pragma once

#include <cstdint>
#include <vector>

#include "blocks.h"
#include "knots.h"
#include "positions.h"

namespace alrp::cpu {

// Ends that a search compares at once.
constexpr int64_t kStep = 4;

// Selected arrays are read and written whole vectors at a time.
constexpr int64_t kLanes = 16;

// The ends of the segments as floats: the lowest float at or above each knot. `score >= ends[m]` compares a
// float score with knot m, and the difference of a score to the end below it is one of near floats.
std::vector<float> ends_of(const Knots<int64_t>& knots, const Narrow& position);

// A table of cells of equal width over the range of the ends, in which one look-up finds a segment.
//
// With y = (score - below) * scale, an odd number of 30 bits, sum = y + entry[y >> shift] has the segment
// above its low `shift` bits: the carry out of the low bits is the comparison with the one end that the cell
// may hold. That is exact where the float before the end has another y. Two cases, both rare, are left to a
// search: a cell with several ends sets the top bit, and low bits of 0 say that a score has the y of an end
// which the float before it has too.
class Grid {
 public:
  // `ends` ascend. `most` limits the cells: a table finer than there are scores to look up
  // does not pay.
  Grid(const std::vector<float>& ends, int64_t most);

  // A score below every end that may be looked up; all scores below the ends are alike.
  float below() const { return below_; }

  // Segments of `size` scores from below() to the highest end, that is how many ends are at or below each;
  // up to kLanes - 1 more are read and written.
  void segments(const float* score, int64_t size, int32_t* segment) const;

 private:
  uint32_t place(float score) const;
  int32_t search(int32_t counted, float score) const;
  int32_t search_far(int64_t from, float score) const;
  void segments_portable(const float* score, int64_t size, int32_t* segment) const;
  void segments_avx512(const float* score, int64_t size, int32_t* segment) const;

  int64_t count_;            // of ends
  std::vector<float> ends_;  // and infinities behind them, for reading kStep at a time
  float below_, scale_;
  int shift_;  // bits of a place within its cell
  std::vector<uint32_t> entries_;
};

// What select() looks for: scores from `lowest` on matter, those from `highest` on are alike, `below` stands
// for the others.
struct Range {
  float below, lowest, highest;
};

// The negatives of a block from the lowest end on: dense, or in place where most matter. Lanes up to the next
// whole vector hold `below`.
struct Selected {
  alignas(64) float score[kBlock + kLanes];
  uint16_t keep[kBlock / kLanes];  // bit k % 16 of keep[k / 16], where dense
  int64_t size;                    // scores, matter or not
  int64_t matter;                  // how many do
  bool in_place;
};

// Sets all of `out` but in_place, which is read. Returns whether a negative is NaN. Negatives have marks of
// 0.
bool select(const float* scores, const Mark* marks, int64_t size, const Range& range, Selected* out);

// Adds each score's position to the bin of its segment.
void add_to_bins(const float* score, const int32_t* segment, int64_t size, const Narrow& position,
                 Bin<Narrow::Sum>* bins);

// A Spread in the layout of one look-up: 16 bytes a segment. Slopes are per step, not per unit of score: a
// small gradient must not fall among float's subnormal numbers.
struct alignas(16) Record {
  float from, base, slope, unused;
};

// out[k] = base + slope (score - from) / (2 delta), of the record of each one's segment. `stream` writes past
// the caches: out is aligned to 64 bytes, and fence() follows.
void evaluate(const Record* records, float per_step, const float* score, const int32_t* segment, int64_t size,
              bool stream, float* out);

// out[k] = the next of `dense` where keep has bit k, else 0: the way back from dense scores to a block.
void expand(const float* dense, const uint16_t* keep, int64_t size, bool stream, float* out);

// Makes what was streamed visible to other threads.
void fence();

}  // namespace alrp::cpu

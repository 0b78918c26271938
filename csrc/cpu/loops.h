// The loops that each level of CPU has a form of its own of, and the table of those of the level in use. All
// forms give the same bits.
#pragma once

#include <cstdint>

#include "../step.h"
#include "blocks.h"
#include "cells.h"
#include "level.h"

namespace c10 {
struct BFloat16;
struct Half;
}  // namespace c10

namespace alrp::cpu {

// Rows of pairs that are summed at once: their accumulators stay in registers. Fill unused rows with NaN.
constexpr int kRowTile = 16;

// One source, compiled for each level: plain_loops.h.
struct PlainLoops {
  // As functions of these names in pairs.h, for skew = 1.
  void (*count_rows)(const double* columns, int64_t m, const double* rows, Step h, double* sums);
  void (*sum_rows)(const double* columns, const double* weights, int64_t m, const double* rows, Step h,
                   double* sums);
  void (*sum_columns)(const double* columns, int64_t m, const double* rows, const double* weights, int64_t r,
                      Step h, double* sums);

  // flat_mark of the labels from `begin` on.
  void (*flat_marks)(const Labels& labels, int64_t begin, int64_t size, Mark* marks);

  // What static_cast gives for each number.
  void (*half_to_float)(const c10::Half* from, int64_t size, float* to);
  void (*float_to_half)(const float* from, int64_t size, c10::Half* to);
  void (*bfloat16_to_float)(const c10::BFloat16* from, int64_t size, float* to);
  void (*float_to_bfloat16)(const float* from, int64_t size, c10::BFloat16* to);
};

// What select() looks for: scores from `lowest` on matter, those from `highest` on are alike, `below` stands
// for the others.
struct Range {
  float below, lowest, highest;
};

// The scores of a block from the lowest end on: dense, or in place where most matter. Lanes up to the next
// whole vector hold `below`.
struct Selected {
  alignas(64) float score[kBlockLogits + kLanes];
  uint16_t keep[kBlockLogits / kLanes];  // bit k % 16 of keep[k / 16], where dense
  int64_t size;                          // scores, matter or not
  int64_t matter = 0;                    // how many do
  bool in_place;
  // What select() reads of the next block, or of this one again where it has fetched that itself.
  const float* next_scores;
};

// With the streaming loops of the sorted form on narrow positions, over blocks of float scores.
struct Loops : PlainLoops {
  // Sets all of `out` but in_place, which is read. Returns how many scores are NaN.
  int64_t (*select)(const float* scores, int64_t size, const Range& range, Selected* out);

  // Segment m has m ends at or below its scores.
  void (*look_up_segments)(const SegmentTable& table, const Selected& selected, int32_t* segment);

  // Adds the position of each selected score to the bin of its segment.
  void (*add_to_bins)(const Selected& selected, const int32_t* segment, const Narrow& position,
                      Bin<Narrow::Sum>* bins);

  // The table's value at each selected score.
  void (*look_up_values)(const ValueTable& table, const Selected& selected, float* value);

  // What `value` has for the selected scores, in their places among `size`; 0 for the rest. `stream` writes
  // past the caches: out is aligned to 64 bytes, and fence() follows.
  void (*write_values)(const Selected& selected, const float* value, int64_t size, bool stream, float* out);

  // Makes what was streamed visible to other threads.
  void (*fence)();

  // Those of a level, which this CPU has to have.
  static const Loops& of(Level level);

 private:
  static const Loops portable, avx2, avx512, neon;
};

// Those of level().
inline const Loops& loops() {
  static const Loops& loops = Loops::of(level());
  return loops;
}

}  // namespace alrp::cpu

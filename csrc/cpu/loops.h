// The streaming loops of the sorted form on narrow positions, over blocks of float scores: one set for each
// level of CPU. All give the same bits.
#pragma once

#include <cstdint>

#include "blocks.h"
#include "cells.h"
#include "level.h"

namespace alrp::cpu {

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

struct Loops {
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
  static const Loops portable, avx2, avx512;
};

// Those of level().
inline const Loops& loops() {
  static const Loops& loops = Loops::of(level());
  return loops;
}

}  // namespace alrp::cpu

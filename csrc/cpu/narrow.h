// The streaming loops of the sorted algorithm on narrow positions, over blocks of float scores: select those
// that matter, add them to bins, and bring what was found for them back to their places.
#pragma once

#include <cstdint>

#include "blocks.h"
#include "cells.h"
#include "positions.h"

namespace alrp::cpu {

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
  // What select() reads of the next block, or of this one again where it has fetched that itself.
  const float* ahead_scores;
  const Mark* ahead_marks;
};

// Sets all of `out` but in_place, which is read. Returns whether a negative is NaN. Negatives have marks of
// 0.
bool select(const float* scores, const Mark* marks, int64_t size, const Range& range, Selected* out);

// Adds the position of each selected score to the bin of its segment.
void add_to_bins(const Selected& selected, const int32_t* segment, const Narrow& position,
                 Bin<Narrow::Sum>* bins);

// What `value` has for the selected scores, in their places among `size`; 0 for the rest. `stream` writes
// past the caches: out is aligned to 64 bytes, and fence() follows.
void write_values(const Selected& selected, const float* value, int64_t size, bool stream, float* out);

// Makes what was streamed visible to other threads.
void fence();

}  // namespace alrp::cpu

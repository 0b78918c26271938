// What the streaming loops of the sorted algorithm on narrow positions (loops.h) pass on, over blocks of float scores: those
// that matter.
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

}  // namespace alrp::cpu

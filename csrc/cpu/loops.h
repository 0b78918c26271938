// One set of the streaming loops of the sorted form for each level of CPU. They give the same bits.
#pragma once

#include "cells.h"
#include "level.h"
#include "narrow.h"

namespace alrp::cpu {

struct Loops {
  // Sets all of `out` but in_place, which is read. Returns whether a negative is NaN. Negatives have marks of
  // 0.
  bool (*select)(const float* scores, const Mark* marks, int64_t size, const Range& range, Selected* out);

  void (SegmentTable::*look_up_segments)(const float* score, int64_t size, int32_t* segment) const;

  // Adds the position of each selected score to the bin of its segment.
  void (*add_to_bins)(const Selected& selected, const int32_t* segment, const Narrow& position,
                      Bin<Narrow::Sum>* bins);

  void (ValueTable::*look_up_values)(const Selected& selected, float* value) const;

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

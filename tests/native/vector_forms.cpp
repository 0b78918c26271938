// One block through the streaming loops of csrc/cpu, by those of any level, for Python.
#include <algorithm>
#include <cstring>
#include <vector>

#include "loops.h"

using namespace alrp;
using namespace alrp::cpu;

extern "C" {

int block_size() { return static_cast<int>(kBlockLogits); }

// The highest that this CPU has and ALRP_CPU_CAPABILITY allows.
int highest_level() { return static_cast<int>(level()); }

const char* level_name(int level) { return name_of(static_cast<Level>(level)); }

// `positives` ascend. Writes what the forward pass adds to the bins of `segments` segments (there is room for
// 2 p + 1), and the gradient; returns how many scores are NaN.
int run_block(int level, const double* positives, const double* shares, int p, double delta,
              const float* scores, int size, int in_place, uint64_t* counts, uint64_t* sums,
              float* gradient) {
  const Loops& loops = Loops::of(static_cast<Level>(level));
  const Narrow position = Narrow::make(positives[0], size, delta);
  std::vector<int64_t> at(p);
  std::transform(positives, positives + p, at.begin(), [&](double s) { return position.of(s); });
  const Knots<int64_t> knots(at, position.half);
  const Ends ends(ends_of(knots, position));
  const Cells cells(ends, size);

  static Selected selected;
  selected.in_place = in_place != 0;
  // Loops may look ahead and past the end, but not use what they see there.
  std::vector<float> padded(scores, scores + size);
  const int64_t nan =
      loops.select(padded.data(), size, {cells.below, ends.lowest(), ends.highest()}, &selected);

  std::vector<int32_t> segment(selected.size + kLanes);
  loops.look_up_segments(SegmentTable(ends, cells), selected, segment.data());
  std::vector<Bin<Narrow::Sum>> bins(knots.segments(), {0, 0});
  loops.add_to_bins(selected, segment.data(), position, bins.data());
  for (int64_t m = 1; m + 1 < knots.segments(); ++m) {  // what is read: neither below all knots nor above
    counts[m] = bins[m].count;
    sums[m] = bins[m].positions;
  }

  std::vector<float> value(2 * kBlockLogits);
  const RampSum ramps(knots, shares);
  loops.look_up_values(ValueTable(ends, cells, knots, position, ramps, 1.0), selected, value.data());
  const auto aligned = reinterpret_cast<uintptr_t>(gradient) % 64 == 0;
  loops.write_values(selected, value.data(), size, aligned, gradient);
  loops.fence();
  return static_cast<int>(nan);
}
}

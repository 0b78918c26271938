// Both passes of the streaming loops over one dense case, by the level that ALRP_CPU_CAPABILITY names, for tools that
// count the instructions of each function. docs/cpu.md has the commands and what they say.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "loops.h"

using namespace alrp;
using namespace alrp::cpu;

namespace {

// About normal, and the same on any machine.
double bell(double middle, double width) {
  static uint64_t state = 1;
  double sum = -6;
  for (int k = 0; k < 12; ++k) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    sum += static_cast<double>(state >> 11) * 0x1p-53;
  }
  return middle + width * sum;
}

}  // namespace

int main() {
  constexpr int64_t kCount = 128 * kBlockLogits;
  std::vector<double> positives(500), shares(positives.size(), 1.0);
  std::vector<float> scores(kCount + kBlockLogits), gradient(kCount);
  for (double& s : positives) s = static_cast<float>(bell(-2, 1.5));
  for (float& s : scores) s = static_cast<float>(bell(-4.6, 1));
  std::sort(positives.begin(), positives.end());

  const Narrow position = Narrow::make(positives[0], kCount, 1.0);
  std::vector<int64_t> at(positives.size());
  std::transform(positives.begin(), positives.end(), at.begin(), [&](double s) { return position.of(s); });
  const Knots<int64_t> knots(at, position.half);
  const Ends ends(ends_of(knots, position));
  const Cells cells(ends, kCount);
  const Range range{cells.below, ends.lowest(), ends.highest()};
  const SegmentTable segments(ends, cells);
  const ValueTable values(ends, cells, knots, position, RampSum(knots, shares.data()), 1.0);

  static Selected selected;
  static int32_t segment[kBlockLogits + kLanes];
  static float value[2 * kBlockLogits];
  std::vector<Bin<Narrow::Sum>> bins(knots.segments());
  selected.in_place = true;
  for (int64_t begin = 0; begin < kCount; begin += kBlockLogits) {
    loops().select(scores.data() + begin, kBlockLogits, range, &selected);
    loops().look_up_segments(segments, selected, segment);
    loops().add_to_bins(selected, segment, position, bins.data());
    loops().look_up_values(values, selected, value);
    loops().write_values(selected, value, kBlockLogits, false, gradient.data() + begin);
  }
  std::printf("%s: %lld logits\n", name_of(level()), static_cast<long long>(kCount));
}

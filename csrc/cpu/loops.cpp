// The streaming loops in plain C++, for every CPU.
#include "loops.h"

#include <algorithm>

#define ALRP_LEVEL
#include "plain_loops.h"

namespace alrp::cpu {
namespace {

int64_t select_in_place(const float* scores, int64_t size, const Range& range, Selected* out) {
  int32_t matter = 0, nan = 0;
  for (int64_t k = 0; k < size; ++k) {
    const float s = scores[k];
    const bool keep = s >= range.lowest;
    out->score[k] = keep ? (s < range.highest ? s : range.highest) : range.below;
    matter += keep;
    nan += s != s;
  }
  out->size = size;
  out->matter = matter;
  return nan;
}

int64_t select_dense(const float* scores, int64_t size, const Range& range, Selected* out) {
  std::fill(out->keep, out->keep + (size + kLanes - 1) / kLanes, uint16_t{0});
  int64_t m = 0, nan = 0;
  for (int64_t k = 0; k < size; ++k) {  // without branches: the count advances or it does not
    const float s = scores[k];
    const bool keep = s >= range.lowest;
    out->score[m] = s < range.highest ? s : range.highest;
    out->keep[k / kLanes] |= static_cast<uint16_t>(keep << (k % kLanes));
    m += keep;
    nan += s != s;
  }
  out->size = out->matter = m;
  return nan;
}

int64_t select(const float* scores, int64_t size, const Range& range, Selected* out) {
  return (out->in_place ? select_in_place : select_dense)(scores, size, range, out);
}

void look_up_segments(const SegmentTable& table, const Selected& selected, int32_t* segment) {
  const Cells& cells = table.cells;
  const float* score = selected.score;
  const uint32_t mask = (uint32_t{1} << cells.shift) - 1;
  for (int64_t k = 0; k < selected.size; ++k) {
    const uint32_t place = cells.place(score[k]), sum = (place & mask) + table.entries[place >> cells.shift];
    const auto m = static_cast<int32_t>((sum & ~SegmentTable::kSeveral) >> cells.shift);
    // The end that was counted last may lie above the score.
    segment[k] =
        sum >= SegmentTable::kSeveral || !(sum & mask) ? table.ends.search(std::max(0, m - 1), score[k]) : m;
  }
}

void add_to_bins(const Selected& selected, const int32_t* segment, const Narrow& position,
                 Bin<Narrow::Sum>* bins) {
  for (int64_t k = 0; k < selected.size; ++k) {
    Bin<Narrow::Sum>& bin = bins[segment[k]];
    bin = bin + Bin<Narrow::Sum>{static_cast<Narrow::Sum>(position.of(selected.score[k])), 1};
  }
}

void look_up_values(const ValueTable& table, const Selected& selected, float* value) {
  const float* score = selected.score;
  for (int64_t k = 0; k < selected.size; ++k) {
    const ValueTable::Record& r = table.records[table.cells.place(score[k]) >> table.cells.shift];
    const float steps = (score[k] - r.end) * table.per_step;
    value[k] = r.base + (steps < 0 ? r.slope_below : r.slope_above) * steps;
    if (value[k] == value[k]) continue;
    value[k] = table.on_line(table.ends.search(r.known(), score[k]), score[k]);
  }
}

void write_values(const Selected& selected, const float* value, int64_t size, bool, float* out) {
  if (selected.in_place) {
    std::copy(value, value + size, out);
    return;
  }
  int64_t m = 0;
  for (int64_t k = 0; k < size; ++k) {
    const bool kept = selected.keep[k / kLanes] >> (k % kLanes) & 1;
    out[k] = kept ? value[m] : 0.0f;
    m += kept;
  }
}

void fence() {}

}  // namespace

constinit const Loops Loops::portable{
    kPlainLoops,       cpu::select, cpu::look_up_segments, cpu::add_to_bins, cpu::look_up_values,
    cpu::write_values, cpu::fence,
};

const Loops& Loops::of(Level level) {
  switch (level) {
#ifdef ALRP_AVX2
    case Level::kAvx512:
      return avx512;
    case Level::kAvx2:
      return avx2;
#endif
#ifdef ALRP_NEON
    case Level::kNeon:
      return neon;
#endif
    default:
      return portable;
  }
}

}  // namespace alrp::cpu

#include "cells.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <limits>

#include "avx512.h"

namespace alrp::cpu {
namespace {

constexpr int kPlaceBits = 30;
constexpr int64_t kCellsPerEnd = 6;
constexpr int64_t kFewestCellsPerEnd = 4;  // an entry has room for no fewer
constexpr int64_t kFewestCells = 256;
constexpr uint32_t kSeveral = 0x80000000u;  // marks the entry of a cell with several ends

// The float before x, which is finite. std::nextafter is a call, which P-sized loops would feel.
float before(float x) {
  if (x == 0) return -std::numeric_limits<float>::denorm_min();
  return std::bit_cast<float>(std::bit_cast<int32_t>(x) + (x > 0 ? -1 : 1));
}

// Calls f(cell, first, last) for every cell, in order: ends [first, last) lie in it.
template <typename F>
void for_cells(const std::vector<float>& ends, const Cells& cells, F&& f) {
  const auto count = static_cast<int32_t>(ends.size());
  uint32_t cell = 0;
  for (int32_t first = 0; first < count; ++cell) {
    const uint32_t next = cells.place(ends[first]) >> cells.shift;
    for (; cell < next; ++cell) f(cell, first, first);
    int32_t last = first + 1;
    while (last < count && cells.place(ends[last]) >> cells.shift == next) ++last;
    f(cell, first, last);
    first = last;
  }
}

}  // namespace

std::vector<float> ends_of(const Knots<int64_t>& knots, const Narrow& position) {
  std::vector<float> ends(knots.at.size());
  const double unit = 1 / position.scale;  // a power of two
  std::transform(knots.at.begin(), knots.at.end(), ends.begin(), [&](int64_t knot) {
    const double exact = (static_cast<double>(knot) - position.offset) * unit;
    const auto end = static_cast<float>(exact);
    return end < exact ? -before(-end) : end;
  });
  return ends;
}

Cells::Cells(const std::vector<float>& ends, int64_t most) {
  const auto n = static_cast<int64_t>(ends.size());
  const int64_t wish = std::max({kFewestCells, n * kFewestCellsPerEnd, std::min(n * kCellsPerEnd, most)});
  shift = std::max(1, kPlaceBits - static_cast<int>(std::bit_width<uint64_t>(wish)));
  const float lowest = ends.front(), highest = ends.back();
  // A cell or two lower than the lowest end.
  below = std::min(lowest - 2 * (highest - lowest) / static_cast<float>(wish), before(lowest));
  scale = std::min(static_cast<float>(wish << shift) / (highest - below), FLT_MAX);
  count = (place(highest) >> shift) + 1;
}

Ends::Ends(const std::vector<float>& ends) : padded_(ends) {
  padded_.resize(ends.size() + kStep, std::numeric_limits<float>::infinity());
}

int32_t Ends::search(int32_t known, float score) const {
  const float* next = from(known);
  int32_t more = 0;
  for (int32_t k = 0; k < kStep; ++k) more += next[k] <= score;  // without branches: all are compared
  return more < kStep ? known + more : search_far(known, score);
}

int32_t Ends::search_far(int32_t known, float score) const {
  return static_cast<int32_t>(std::upper_bound(padded_.begin() + known + kStep, padded_.end(), score) -
                              padded_.begin());
}

SegmentTable::SegmentTable(const std::vector<float>& ends, const Cells& cells)
    : cells_(cells), ends_(ends), entries_(cells.count) {
  const uint32_t width = uint32_t{1} << cells.shift;
  for_cells(ends, cells, [&](uint32_t cell, int32_t first, int32_t last) {
    uint32_t entry = (static_cast<uint32_t>(first) << cells.shift) - (cell << cells.shift);
    if (last == first + 1) {
      const uint32_t place = cells.place(ends[first]);
      // Places are odd: only an end that is set odd too can leave low bits of 0.
      const bool exact = cells.place(before(ends[first])) != place;
      entry += width - ((place & (width - 1)) - exact);
    } else if (last > first) {
      entry += kSeveral;
    }
    entries_[cell] = entry;
  });
}

void SegmentTable::look_up_portable(const float* score, int64_t size, int32_t* segment) const {
  const uint32_t mask = (uint32_t{1} << cells_.shift) - 1;
  for (int64_t k = 0; k < size; ++k) {
    const uint32_t place = cells_.place(score[k]), sum = place + entries_[place >> cells_.shift];
    const auto m = static_cast<int32_t>((sum & ~kSeveral) >> cells_.shift);
    // The end that was counted last may lie above the score.
    segment[k] = sum >= kSeveral || !(sum & mask) ? ends_.search(std::max(0, m - 1), score[k]) : m;
  }
}

void SegmentTable::look_up(const float* score, int64_t size, int32_t* segment) const {
#ifdef ALRP_AVX512
  if (has_avx512()) return look_up_avx512(score, size, segment);
#endif
  look_up_portable(score, size, segment);
}

ValueTable::ValueTable(const std::vector<float>& ends, const Cells& cells, const Knots<int64_t>& knots,
                       const Narrow& position, const Spread<int64_t>& spread, double scale)
    : cells_(cells), ends_(ends), lines_(knots.segments()), records_(cells.count) {
  const auto width = static_cast<double>(2 * knots.half);
  per_step_ = static_cast<float>(position.scale / width);
  lines_[0] = {cells.below, 0, 0};
  for (int64_t m = 1; m < knots.segments(); ++m)
    lines_[m] = {ends[m - 1], static_cast<float>(spread(knots, position.of(ends[m - 1]), m) * scale),
                 static_cast<float>(spread.slope[m] * width * scale)};
  const double cell_steps = std::ldexp(1.0, cells.shift) / cells.scale * per_step_;
  for_cells(ends, cells, [&](uint32_t cell, int32_t first, int32_t last) {
    Record& to = records_[cell];
    const Line& below = lines_[first];
    if (first == last) {
      to = {below.from, below.base, below.slope, below.slope};
      return;
    }
    const Line& above = lines_[first + 1];
    const double beyond = static_cast<double>(position.of(above.from) - knots.at[first]) / width;
    to = {above.from, above.base, below.slope, above.slope};
    // Below the end the base would be subtracted from, and is taken beyond the knot: both must be nothing
    // beside it.
    const double base = std::abs(above.base);
    const bool precise = first > 0 && std::abs(below.slope) * cell_steps <= 0.5 * base &&
                         std::abs(above.slope - below.slope) * beyond <= 0x1p-25 * base;
    if (last > first + 1 || !precise) {
      to.base = std::numeric_limits<float>::quiet_NaN();
      to.end = std::bit_cast<float>(first);
    }
  });
}

int32_t ValueTable::Record::known() const { return base == base ? 0 : std::bit_cast<int32_t>(end); }

void ValueTable::look_up_portable(const float* score, int64_t size, float* value) const {
  for (int64_t k = 0; k < size; ++k) {
    const Record& r = records_[cells_.place(score[k]) >> cells_.shift];
    const float steps = (score[k] - r.end) * per_step_;
    value[k] = r.base + (steps < 0 ? r.slope_below : r.slope_above) * steps;
    if (value[k] == value[k]) continue;
    const Line& line = lines_[ends_.search(r.known(), score[k])];
    value[k] = line.base + line.slope * ((score[k] - line.from) * per_step_);
  }
}

void ValueTable::look_up(const float* score, int64_t size, float* value) const {
#ifdef ALRP_AVX512
  if (has_avx512()) return look_up_avx512(score, size, value);
#endif
  look_up_portable(score, size, value);
}

}  // namespace alrp::cpu

#include "cells.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <limits>

#include "loops.h"

namespace alrp::cpu {
namespace {

constexpr int kPlaceBits = 30;
constexpr int64_t kFewestCells = 256;
constexpr int64_t kFewestCellsPerEnd = 4;  // an entry has room for no fewer
constexpr int64_t kCellsPerEnd = 6;
// Cells that leave few ends crowded, for searches cost, and still fit the nearest caches; worth it from so many scores on.
constexpr int64_t kFineCells = 1 << 14, kFineCellsPerEnd = 16, kScoresPerFineCell = 32;
constexpr uint32_t kSeveral = 0x80000000u;  // marks the entry of a cell with several ends

// The float before x, which is finite. std::nextafter is a call, which P-sized loops would feel.
float before(float x) {
  if (x == 0) return -std::numeric_limits<float>::denorm_min();
  return std::bit_cast<float>(std::bit_cast<int32_t>(x) + (x > 0 ? -1 : 1));
}

// x, below 2^51, as a double, by instructions that are there for vectors: the way back of Narrow::shifted.
double to_double(int64_t x) {
  return std::bit_cast<double>(x + std::bit_cast<int64_t>(Narrow::kShift)) - Narrow::kShift;
}

// Sets the cells [from, until), kAhead at once without a look at how many there are: most runs are short, and how short
// is as good as random. Cells that it sets past `until` are set again by those that follow.
constexpr int64_t kAhead = 16;

template <typename T>
void set_run(T* from, const T* until, const T value) {
  do {
    std::fill_n(from, kAhead, value);
  } while ((from += kAhead) < until);
}

// A table of `cells`: at_end(m, place, first) for the cell of each end m, where ends [first, m] lie in it, the last one
// for a cell with several; between(m) for cells after m ends and before the next.
template <typename T, typename AtEnd, typename Between>
std::unique_ptr<T[]> make_table(const std::vector<float>& ends, const Cells& cells, const AtEnd& at_end,
                                const Between& between) {
  std::unique_ptr<T[]> table(new T[cells.count + kAhead]);
  T* const to = table.get();
  const auto count = static_cast<int32_t>(ends.size());
  uint32_t place = cells.place(ends[0]);
  int64_t cell = place >> cells.shift;
  set_run(to, to + cell, between(0));
  for (int32_t m = 0, first = 0; m < count; ++m) {
    to[cell] = at_end(m, place, first);
    place = cells.place(ends[std::min(m + 1, count - 1)]);
    const int64_t next = place >> cells.shift;
    set_run(to + cell + 1, to + next, between(m + 1));
    first = next == cell ? first : m + 1;
    cell = next;
  }
  return table;
}

}  // namespace

std::vector<float> ends_of(const Knots<int64_t>& knots, const Narrow& position) {
  std::vector<float> ends(knots.at.size());
  const double unit = 1 / position.scale;  // a power of two
  std::transform(knots.at.begin(), knots.at.end(), ends.begin(), [&](int64_t knot) {
    const double exact = (to_double(knot) - position.offset) * unit;
    const auto end = static_cast<float>(exact);
    const auto bits = std::bit_cast<int32_t>(end);
    const int32_t after = bits + (bits < 0 ? -1 : 1);
    return std::bit_cast<float>(end < exact ? after : bits);
  });
  return ends;
}

Cells::Cells(const std::vector<float>& ends, int64_t most) {
  const auto n = static_cast<int64_t>(ends.size());
  const int64_t wish = std::max({kFewestCells, n * kFewestCellsPerEnd, std::min(n * kCellsPerEnd, most),
                                 std::min({kFineCells, n * kFineCellsPerEnd, most / kScoresPerFineCell})});
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

SegmentTable::SegmentTable(const std::vector<float>& ends, const Cells& cells) : cells_(cells), ends_(ends) {
  const auto after = [shift = cells.shift](int32_t m) { return static_cast<uint32_t>(m) << shift; };
  entries_ = make_table<uint32_t>(
      ends, cells,
      [&, width = after(1)](int32_t m, uint32_t place, int32_t first) {
        // Places are odd: only an end that is set odd too can leave low bits of 0.
        const bool exact = cells.place(before(ends[m])) != place;
        const uint32_t carry = width - ((place & (width - 1)) - exact);
        return after(first) + (first == m ? carry : kSeveral);
      },
      after);
}

void SegmentTable::look_up_portable(const float* score, int64_t size, int32_t* segment) const {
  const uint32_t mask = (uint32_t{1} << cells_.shift) - 1;
  for (int64_t k = 0; k < size; ++k) {
    const uint32_t place = cells_.place(score[k]), sum = (place & mask) + entries_[place >> cells_.shift];
    const auto m = static_cast<int32_t>((sum & ~kSeveral) >> cells_.shift);
    // The end that was counted last may lie above the score.
    segment[k] = sum >= kSeveral || !(sum & mask) ? ends_.search(std::max(0, m - 1), score[k]) : m;
  }
}

void SegmentTable::look_up(const float* score, int64_t size, int32_t* segment, const Loops& loops) const {
  (this->*loops.look_up_segments)(score, size, segment);
}

ValueTable::ValueTable(const std::vector<float>& ends, const Cells& cells, const Knots<int64_t>& knots,
                       const Narrow& position, const Spread<int64_t>& spread, double scale)
    : cells_(cells), ends_(ends) {
  const int64_t count = static_cast<int64_t>(ends.size());
  const auto width = static_cast<double>(2 * knots.half);
  per_step_ = static_cast<float>(position.scale / width);
  lines_.base.resize(count + 1);
  lines_.slope.resize(count + 1);
  std::vector<double> beyond(count);  // how far each end lies past its knot, in units
  for (int64_t m = 0; m < count; ++m) {
    beyond[m] = to_double(position.of(ends[m]) - knots.at[m]);
    lines_.base[m + 1] = static_cast<float>((spread.base[m + 1] + spread.slope[m + 1] * beyond[m]) * scale);
    lines_.slope[m + 1] = static_cast<float>(spread.slope[m + 1] * (width * scale));
  }
  const double cell_steps = std::ldexp(1.0, cells.shift) / cells.scale * per_step_, step = 1 / width;
  records_ = make_table<Record>(
      ends, cells,
      [&](int32_t m, uint32_t, int32_t first) -> Record {
        const float below = lines_.slope[m], above = lines_.slope[m + 1], base = lines_.base[m + 1];
        // Below the end the base would be subtracted from, and is taken beyond the knot: both must be nothing
        // beside it.
        const double size = std::abs(base);
        const bool precise = (m > 0) & (std::abs(below) * cell_steps <= 0.5 * size) &
                             (std::abs(above - below) * (beyond[m] * step) <= 0x1p-25 * size);
        const int32_t holds =
            -static_cast<int32_t>(precise & (first == m));  // without a branch: all bits or none
        constexpr auto kNaN = std::bit_cast<int32_t>(std::numeric_limits<float>::quiet_NaN());
        const auto choose = [holds](float yes, int32_t no) {
          return std::bit_cast<float>((std::bit_cast<int32_t>(yes) & holds) | (no & ~holds));
        };
        return {choose(ends[m], first), choose(base, kNaN), below, above};
      },
      [&](int32_t m) -> Record {
        return {m ? ends[m - 1] : cells.below, lines_.base[m], lines_.slope[m], lines_.slope[m]};
      });
}

void ValueTable::look_up_portable(const Selected& selected, float* value) const {
  const float* score = selected.score;
  for (int64_t k = 0; k < selected.size; ++k) {
    const Record& r = records_[cells_.place(score[k]) >> cells_.shift];
    const float steps = (score[k] - r.end) * per_step_;
    value[k] = r.base + (steps < 0 ? r.slope_below : r.slope_above) * steps;
    if (value[k] == value[k]) continue;
    value[k] = on_line(ends_.search(r.known(), score[k]), score[k]);
  }
}

void ValueTable::look_up(const Selected& selected, float* value, const Loops& loops) const {
  (this->*loops.look_up_values)(selected, value);
}

}  // namespace alrp::cpu

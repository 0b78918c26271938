#include "cells.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <limits>
#include <utility>

namespace alrp::cpu {
namespace {

constexpr int kPlaceBits = 30;
constexpr int64_t kFewestCells = 256;
constexpr int64_t kFewestCellsPerEnd = 4;  // so that the segment fits an entry
constexpr int64_t kCellsPerEnd = 6;
// Finer cells hold several ends less often, which costs a search. They pay while the table fits the nearest
// caches, and from so many scores on.
constexpr int64_t kFineCells = 1 << 14, kFineCellsPerEnd = 16, kScoresPerFineCell = 32;

// The float before x, which is finite. std::nextafter is a call, too slow for each of 2p ends.
float before(float x) {
  if (x == 0) return -std::numeric_limits<float>::denorm_min();
  return std::bit_cast<float>(std::bit_cast<int32_t>(x) + (x > 0 ? -1 : 1));
}

// x, below 2^51, as a double, by instructions that vectorise: the inverse of Narrow::shifted.
double to_double(int64_t x) {
  return std::bit_cast<double>(x + std::bit_cast<int64_t>(Narrow::kShift)) - Narrow::kShift;
}

// Sets the cells [from, until) and some past them, which the runs that follow set again: most runs are short and
// of random length, which a branch would mispredict.
constexpr int64_t kSetAtOnce = 16;

template <typename T>
void set_run(T* from, const T* until, const T value) {
  do {
    std::fill_n(from, kSetAtOnce, value);
  } while ((from += kSetAtOnce) < until);
}

// A table of `cells`: at_end(m, place, first) for the cell whose ends are [first, m]; between(m) for cells
// after m ends and before the next.
template <typename T, typename AtEnd, typename Between>
std::unique_ptr<T[]> make_table(const Ends& ends, const Cells& cells, const AtEnd& at_end,
                                const Between& between) {
  std::unique_ptr<T[]> table(new T[cells.count + kSetAtOnce]);
  T* const to = table.get();
  const int32_t count = ends.size();
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

Ends::Ends(std::vector<float> ends) : padded_(std::move(ends)) {
  padded_.insert(padded_.end(), kStep, std::numeric_limits<float>::infinity());
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

Cells::Cells(const Ends& ends, int64_t most) {
  const int64_t n = ends.size();
  const int64_t wish = std::max({kFewestCells, n * kFewestCellsPerEnd, std::min(n * kCellsPerEnd, most),
                                 std::min({kFineCells, n * kFineCellsPerEnd, most / kScoresPerFineCell})});
  shift = std::max(1, kPlaceBits - static_cast<int>(std::bit_width<uint64_t>(wish)));
  const float lowest = ends.lowest(), highest = ends.highest();
  // A cell or two lower than the lowest end.
  below = std::min(lowest - 2 * (highest - lowest) / static_cast<float>(wish), before(lowest));
  scale = std::min(static_cast<float>(wish << shift) / (highest - below), FLT_MAX);
  count = (place(highest) >> shift) + 1;
}

SegmentTable::SegmentTable(const Ends& ends, const Cells& cells) : ends(ends), cells(cells) {
  const auto after = [shift = cells.shift](int32_t m) { return static_cast<uint32_t>(m) << shift; };
  entries = make_table<uint32_t>(
      ends, cells,
      [&, width = after(1)](int32_t m, uint32_t place, int32_t first) {
        // Places are odd: only an end that is set odd too can leave low bits of 0.
        const bool exact = cells.place(before(ends[m])) != place;
        const uint32_t carry = width - ((place & (width - 1)) - exact);
        return after(first) + (first == m ? carry : kSeveral);
      },
      after);
}

ValueTable::ValueTable(const Ends& ends, const Cells& cells, const Knots<int64_t>& knots,
                       const Narrow& position, const RampSum<int64_t>& ramps, double scale)
    : ends(ends), cells(cells), base(knots.segments()), slope(knots.segments()) {
  const int32_t count = ends.size();
  const auto width = static_cast<double>(2 * knots.half);
  per_step = static_cast<float>(position.scale / width);
  std::vector<double> beyond(count);  // how far each end lies past its knot, in units
  for (int32_t m = 0; m < count; ++m) {
    beyond[m] = to_double(position.of(ends[m]) - knots.at[m]);
    base[m + 1] = static_cast<float>((ramps.base[m + 1] + ramps.slope[m + 1] * beyond[m]) * scale);
    slope[m + 1] = static_cast<float>(ramps.slope[m + 1] * (width * scale));
  }
  const double cell_steps = std::ldexp(1.0, cells.shift) / cells.scale * per_step, step = 1 / width;
  records = make_table<Record>(
      ends, cells,
      [&](int32_t m, uint32_t, int32_t first) -> Record {
        const float below = slope[m], above = slope[m + 1], at_end = base[m + 1];
        // Below the end the base would be subtracted from, and is taken beyond the knot: both must be nothing
        // beside it.
        const double size = std::abs(at_end);
        const bool precise = (m > 0) & (std::abs(below) * cell_steps <= 0.5 * size) &
                             (std::abs(above - below) * (beyond[m] * step) <= 0x1p-25 * size);
        const int32_t holds =
            -static_cast<int32_t>(precise & (first == m));  // without a branch: all bits or none
        constexpr auto kNaN = std::bit_cast<int32_t>(std::numeric_limits<float>::quiet_NaN());
        const auto choose = [holds](float yes, int32_t no) {
          return std::bit_cast<float>((std::bit_cast<int32_t>(yes) & holds) | (no & ~holds));
        };
        return {choose(ends[m], first), choose(at_end, kNaN), below, above};
      },
      [&](int32_t m) -> Record { return {m ? ends[m - 1] : cells.below, base[m], slope[m], slope[m]}; });
}

}  // namespace alrp::cpu

#include "narrow.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <limits>

#include "clones.h"
#include "narrow_avx512.h"

namespace alrp::cpu {
namespace {

constexpr int kPlaceBits = 30;
constexpr int64_t kCellsPerEnd = 6;
constexpr int64_t kFewestCellsPerEnd = 4;  // an entry has room for no fewer
constexpr int64_t kFewestCells = 256;
constexpr uint32_t kSeveral = 0x80000000u;  // marks a cell with several ends

// The float before x, which is finite. std::nextafter is a call, which P-sized loops would feel.
float before(float x) {
  if (x == 0) return -std::numeric_limits<float>::denorm_min();
  return std::bit_cast<float>(std::bit_cast<int32_t>(x) + (x > 0 ? -1 : 1));
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

Grid::Grid(const std::vector<float>& ends, int64_t most)
    : count_(static_cast<int64_t>(ends.size())), ends_(ends) {
  ends_.resize(count_ + kStep, std::numeric_limits<float>::infinity());
  const int64_t wish =
      std::max({kFewestCells, count_ * kFewestCellsPerEnd, std::min(count_ * kCellsPerEnd, most)});
  shift_ = std::max(1, kPlaceBits - static_cast<int>(std::bit_width<uint64_t>(wish)));
  const float lowest = ends.front(), highest = ends.back();
  // A cell or two lower than the lowest end.
  below_ = std::min(lowest - 2 * (highest - lowest) / static_cast<float>(wish), before(lowest));
  scale_ = std::min(static_cast<float>(wish << shift_) / (highest - below_), FLT_MAX);
  const uint32_t width = uint32_t{1} << shift_;
  entries_.resize((place(highest) >> shift_) + 1);
  uint32_t cell = 0;
  for (int64_t k = 0; k < count_;) {  // k ends are in the cells below
    const uint32_t y = place(ends_[k]), next = y >> shift_, below = static_cast<uint32_t>(k) << shift_;
    for (; cell < next; ++cell) entries_[cell] = below - (cell << shift_);
    int64_t behind = k + 1;
    while (behind < count_ && place(ends_[behind]) >> shift_ == next) ++behind;
    // Places are odd: only an end that is set odd too can leave low bits of 0.
    const bool exact = place(before(ends_[k])) != y;
    const uint32_t of_end = (y & (width - 1)) - exact;
    entries_[cell] = below - (cell << shift_) + (behind == k + 1 ? width - of_end : kSeveral);
    ++cell;
    k = behind;
  }
}

// Monotone in the score: every end at or below a score has a place at or below its own. Odd.
inline uint32_t Grid::place(float score) const {
  return static_cast<uint32_t>(static_cast<int32_t>((score - below_) * scale_)) | 1;
}

// The segment of a score, of which the table says that at least counted - 1 ends are at or below it.
inline int32_t Grid::search(int32_t counted, float score) const {
  const int64_t m = std::max(0, counted - 1);
  int32_t within = 0;
  for (int64_t k = m; k < m + kStep; ++k) within += ends_[k] <= score;  // without branches: all are compared
  if (within < kStep) [[likely]]
    return static_cast<int32_t>(m) + within;
  return search_far(m + kStep, score);
}

int32_t Grid::search_far(int64_t from, float score) const {
  return static_cast<int32_t>(std::upper_bound(ends_.begin() + from, ends_.end(), score) - ends_.begin());
}

void Grid::segments_portable(const float* score, int64_t size, int32_t* segment) const {
  const uint32_t mask = (uint32_t{1} << shift_) - 1;
  for (int64_t k = 0; k < size; ++k) {
    const uint32_t y = place(score[k]), sum = y + entries_[y >> shift_];
    segment[k] = static_cast<int32_t>(sum >> shift_);
    if (sum >= kSeveral || !(sum & mask)) [[unlikely]]
      segment[k] = search(static_cast<int32_t>((sum & ~kSeveral) >> shift_), score[k]);
  }
}

namespace {

ALRP_CLONES
bool select_in_place(const float* scores, const Mark* marks, int64_t size, const Range& range,
                     Selected* out) {
  int32_t matter = 0, nan = 0;
  for (int64_t k = 0; k < size; ++k) {
    const float s = scores[k];
    const bool negative = marks[k] == Mark::kNegative, keep = negative & (s >= range.lowest);
    out->score[k] = keep ? (s < range.highest ? s : range.highest) : range.below;
    matter += keep;
    nan |= negative & (s != s);
  }
  out->size = size;
  out->matter = matter;
  return nan != 0;
}

bool select_dense(const float* scores, const Mark* marks, int64_t size, const Range& range, Selected* out) {
  std::fill(out->keep, out->keep + (size + kLanes - 1) / kLanes, uint16_t{0});
  int64_t m = 0;
  bool nan = false;
  for (int64_t k = 0; k < size; ++k) {  // without branches: the count advances or it does not
    const float s = scores[k];
    const bool negative = marks[k] == Mark::kNegative, keep = negative & (s >= range.lowest);
    out->score[m] = s < range.highest ? s : range.highest;
    out->keep[k / kLanes] |= static_cast<uint16_t>(keep << (k % kLanes));
    m += keep;
    nan |= negative & (s != s);
  }
  out->size = out->matter = m;
  return nan;
}

}  // namespace

void Grid::segments(const float* score, int64_t size, int32_t* segment) const {
#ifdef ALRP_AVX512
  if (has_avx512()) return segments_avx512(score, size, segment);
#endif
  segments_portable(score, size, segment);
}

bool select(const float* scores, const Mark* marks, int64_t size, const Range& range, Selected* out) {
#ifdef ALRP_AVX512
  if (has_avx512()) return select_avx512(scores, marks, size, range, out);
#endif
  return (out->in_place ? select_in_place : select_dense)(scores, marks, size, range, out);
}

void add_to_bins(const float* score, const int32_t* segment, int64_t size, const Narrow& position,
                 Bin<Narrow::Sum>* bins) {
#ifdef ALRP_AVX512
  if (has_avx512()) return add_to_bins_avx512(score, segment, size, position, bins);
#endif
  for (int64_t k = 0; k < size; ++k) {
    Bin<Narrow::Sum>& bin = bins[segment[k]];
    bin.positions += static_cast<Narrow::Sum>(position.of(score[k]));
    ++bin.count;
  }
}

void evaluate(const Record* records, float per_step, const float* score, const int32_t* segment, int64_t size,
              bool stream, float* out) {
#ifdef ALRP_AVX512
  if (has_avx512()) return evaluate_avx512(records, per_step, score, segment, size, stream, out);
#endif
  for (int64_t k = 0; k < size; ++k) {
    const Record& r = records[segment[k]];
    out[k] = r.base + r.slope * ((score[k] - r.from) * per_step);
  }
}

void expand(const float* dense, const uint16_t* keep, int64_t size, bool stream, float* out) {
#ifdef ALRP_AVX512
  if (has_avx512()) return expand_avx512(dense, keep, size, stream, out);
#endif
  int64_t m = 0;
  for (int64_t k = 0; k < size; ++k) {
    const bool kept = keep[k / kLanes] >> (k % kLanes) & 1;
    out[k] = kept ? dense[m] : 0.0f;
    m += kept;
  }
}

void fence() {
#ifdef ALRP_AVX512
  if (has_avx512()) fence_avx512();
#endif
}

}  // namespace alrp::cpu

// The streaming loops over eight numbers at once, for one level of CPU. A file of loops includes this once, after
// vectors.h and what moves lanes at its level:
//   bits(mask)                     bit k for the sign of lane k
//   least(a, b), by_sign(s, a, b)  a where it is less than b, or where s has the sign bit; else b
//   compress(from, bits, to)       stores lanes whose bit is set, dense, and what follows; returns how many
//   expand(bits, &from)            dense numbers, in the lanes whose bit is set; 0 in the others
//   at_most(four, score)           how many of four floats are at most the score
//   Indices(from)                  eight numbers in memory, as indices
//   gather(entries, indices)       the entry of each index
//   gather_records(records, ...)   likewise, by offsets in bytes, a field each
//   Terms(position).of(four)       the positions of four scores, each with a 1
//   stream(to, floats)             a store past the caches, which fence() ends
#include "next_block.h"

namespace alrp::cpu {
namespace {

// Lanes that a loop leaves for later: it notes eight at a time, and they are visited after it.
class RareLanes {
 public:
  ALRP_INLINE void note(int64_t k, const Ints& lanes) {
    lanes_[k / kEight] = static_cast<uint8_t>(bits(lanes));
  }

  // f(k) for each lane that was noted of `size`. They are listed first.
  template <typename F>
  ALRP_INLINE void visit(int64_t size, const F& f) {
    constexpr int64_t kWord = 64;  // lanes in a word
    std::memset(lanes_ + (size + kEight - 1) / kEight, 0, kWord / kEight);
    int16_t listed[kBlockLogits + kLanes];
    int64_t count = 0;
    for (int64_t begin = 0; begin < size; begin += kWord) {
      uint64_t word;
      std::memcpy(&word, lanes_ + begin / kEight, sizeof(word));
      for (; word; word &= word - 1) listed[count++] = static_cast<int16_t>(begin + std::countr_zero(word));
    }
    for (int64_t r = 0; r < count; ++r) f(listed[r]);
  }

 private:
  alignas(64) uint8_t lanes_[kBlockLogits / kEight + kEight];
};

// As Ends::search.
ALRP_INLINE int32_t search(const Ends& ends, int32_t known, float score) {
  static_assert(Ends::kStep == 4);
  const int32_t more = at_most(ends.from(known), score);
  return more == Ends::kStep ? ends.search_far(known, score) : known + more;
}

// Cells::place of eight scores.
ALRP_INLINE Bits places(const Cells& cells, const Floats& score) {
  return as<uint32_t>(convert<int32_t>((score - all(cells.below)) * all(cells.scale))) | all(1u);
}

template <bool kInPlace>
ALRP_LEVEL int64_t select_as(const float* scores, int64_t size, const Range& range, Selected* out) {
  const Floats below = all(range.below), lowest = all(range.lowest), highest = all(range.highest);
  auto* const keeps = reinterpret_cast<uint8_t*>(out->keep);
  out->next_scores = scores + kBlockLogits;
  const NextBlock next(*out);
  Ints numbers = all(0), kept = numbers;  // minus how many; kept where in place
  int64_t m = 0;
  const auto visit = [&](int64_t k, const float* score) ALRP_LEVEL __attribute__((always_inline)) {
    if (!kInPlace && k % kLanes == 0) next.fetch(k);
    const Floats s = load(score);
    numbers = numbers + (s == s);
    const Ints keep = s >= lowest;
    const Floats limited = least(s, highest);
    if constexpr (kInPlace) {
      store(out->score + k, choose(keep, limited, below));
      kept = kept + keep;
    } else {
      const unsigned mask = bits(keep);
      m += compress(limited, mask, out->score + m);
      keeps[k / kEight] = static_cast<uint8_t>(mask);
    }
  };
  int64_t k = 0;
  for (; k + kEight <= size; k += kEight) visit(k, scores + k);
  if (k < size) {
    float last[kEight];
    std::fill_n(last, kEight, -std::numeric_limits<float>::infinity());  // below all
    std::copy(scores + k, scores + size, last);
    visit(k, last);
    k += kEight;
  }
  if constexpr (kInPlace) {
    m = -sum(kept);
  } else {
    store(out->score + m, below);
    out->next_scores = out->score;  // fetched above: the loops over few scores would not get far
  }
  out->size = kInPlace ? size : m;
  out->matter = m;
  return k + sum(numbers);
}

int64_t select(const float* scores, int64_t size, const Range& range, Selected* out) {
  return (out->in_place ? select_as<true> : select_as<false>)(scores, size, range, out);
}

ALRP_LEVEL
void look_up_segments(const SegmentTable& table, const Selected& selected, int32_t* segment) {
  const float* const score = selected.score;
  const int64_t size = selected.size;
  const Cells cells = table.cells;
  const uint32_t* const entries = table.entries.get();
  const Bits mask = all((1u << cells.shift) - 1);
  alignas(64) uint32_t cell[kBlockLogits + kLanes];
  for (int64_t k = 0; k < size; k += kEight) {
    const Bits place = places(cells, load(score + k));
    store(segment + k, as<int32_t>(place & mask));
    store(cell + k, place >> cells.shift);
  }
  RareLanes rare;
  for (int64_t k = 0; k < size; k += kEight) {
    const Bits sum = as<uint32_t>(load(segment + k)) + gather(entries, Indices(cell + k));
    store(segment + k, as<int32_t>(sum >> cells.shift));
    rare.note(k, as<int32_t>(sum) | ((sum & mask) == all(0u)));
  }
  const auto several = static_cast<int32_t>(SegmentTable::kSeveral >> cells.shift);
  rare.visit(size, [&](int64_t k) ALRP_LEVEL __attribute__((always_inline)) {
    segment[k] = search(table.ends, std::max(0, (segment[k] & ~several) - 1), score[k]);
  });
}

ALRP_LEVEL
void add_to_bins(const Selected& selected, const int32_t* segment, const Narrow& position,
                 Bin<Narrow::Sum>* bins) {
  const float* const score = selected.score;
  const int64_t size = selected.size;
  const Terms terms(position);
  const auto add = [bins](uint32_t m, Term term) ALRP_LEVEL __attribute__((always_inline)) {
    typedef uint64_t InMemory __attribute__((vector_size(16), aligned(8), may_alias));
    static_assert(sizeof(Bin<Narrow::Sum>) == sizeof(InMemory));
    InMemory* bin = reinterpret_cast<InMemory*>(bins + m);  // not auto, which would align it
    *bin = *bin + term;
  };
  int64_t k = 0;
  const NextBlock next(selected);
  for (; k + kEight <= size; k += kEight) {
    if (k % kLanes == 0) next.fetch(k);
    const Indices segments(reinterpret_cast<const uint32_t*>(segment) + k);
#pragma GCC unroll 2
    for (int64_t i = 0; i < kEight; i += 4) {
      const FourTerms four = terms.of(score + k + i);
#pragma GCC unroll 4
      for (int64_t r = 0; r < 4; ++r) add(segments[i + r], four.term[r]);
    }
  }
  for (; k < size; ++k) add(static_cast<uint32_t>(segment[k]), terms.of(score + k).term[0]);
}

ALRP_LEVEL
void look_up_values(const ValueTable& table, const Selected& selected, float* value) {
  const float* const score = selected.score;
  const int64_t size = selected.size;
  const NextBlock next(selected);
  // The byte offset of each score's record: 16 times its cell, for multiplying by powers of two is exact.
  static_assert(sizeof(ValueTable::Record) == 16);
  alignas(64) uint32_t offset[kBlockLogits + kLanes];
  const Floats scale = all(std::ldexp(table.cells.scale, 4 - table.cells.shift)),
               below = all(table.cells.below);
  for (int64_t k = 0; k < size; k += kEight)
    store(offset + k, as<uint32_t>(convert<int32_t>((load(score + k) - below) * scale)) & all(~15u));

  const Floats per_step = all(table.per_step);
  RareLanes rare;
  for (int64_t k = 0; k < size; k += kEight) {
    if (k % kLanes == 0) next.fetch(k);
    const Fields fields = gather_records(table.records.get(), Indices(offset + k));
    const Floats steps = (load(score + k) - fields.end) * per_step;
    // By the sign bit: where steps are -0, either slope gives the base.
    const Floats result = fields.base + by_sign(steps, fields.slope_below, fields.slope_above) * steps;
    store(value + k, result);
    rare.note(k, result != result);
  }
  rare.visit(size, [&](int64_t k) ALRP_LEVEL __attribute__((always_inline)) {
    value[k] = table.on_line(
        search(table.ends, table.records[offset[k] / sizeof(ValueTable::Record)].known(), score[k]),
        score[k]);
  });
}

ALRP_LEVEL
void write_values(const Selected& selected, const float* value, int64_t size, bool streams, float* out) {
  const auto* const keeps = reinterpret_cast<const uint8_t*>(selected.keep);
  const auto values = [&](int64_t k) ALRP_LEVEL __attribute__((always_inline)) {
    return selected.in_place ? load(value + k) : expand(keeps[k / kEight], &value);
  };
  int64_t k = 0;
  if (streams)
    for (; k + kEight <= size; k += kEight) stream(out + k, values(k));
  else
    for (; k + kEight <= size; k += kEight) store(out + k, values(k));
  if (k < size) {
    float last[kEight];
    store(last, values(k));
    std::copy(last, last + size - k, out + k);
  }
}

}  // namespace
}  // namespace alrp::cpu

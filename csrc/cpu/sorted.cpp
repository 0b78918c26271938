#include "sorted.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

#include "array.h"
#include "blocks.h"
#include "cells.h"
#include "halves.h"
#include "knots.h"
#include "loops.h"
#include "narrow.h"
#include "parallel.h"
#include "positions.h"

namespace alrp::cpu {
namespace {

// Blocks that a thread takes at once: worth a thread of their own.
constexpr int64_t kPartBlocks = 16;

// Gradients from this size on do not stay in a core's own cache: written past it, they leave it to the tables.
constexpr int64_t kStreamBytes = int64_t{1} << 21;

int64_t half_of(const Narrow& position) { return position.half; }

int128 half_of(const WidePositions& position) { return position.half(); }

template <typename Position>
std::vector<typename Position::Int> positions_of(const Position& position, const double* score, int64_t p) {
  std::vector<typename Position::Int> positions(p);
  std::transform(score, score + p, positions.begin(), [&](double s) { return position.of(s); });
  return positions;
}

// What the two forms do with blocks of logits: read a block, count its negatives into bins (Counter), and
// write its gradients (Writer).
class NarrowBlocks {
 public:
  NarrowBlocks(const Input& input, const Narrow& position, const Knots<int64_t>& knots)
      : input_(input),
        position_(position),
        knots_(knots),
        ends_(ends_of(knots, position)),
        cells_(ends_, counted(input)),  // not input.n: what is written depends on the cells
        range_{cells_.below, ends_.front(), ends_.back()} {}

  struct Buffer {
    Buffer() { selected.matter = 0; }

    int64_t begin, size;
    bool nan = false;   // ever set
    const Mark* marks;  // told apart as far as negative or not
    Mark own_marks[kBlock];
    float scores[kBlock];
    Selected selected;
    int32_t segment[kBlock + kLanes];
    float value[2 * kBlock];  // write_values() reads a vector from any
  };

  void read(int64_t b, Buffer* buffer) const {
    buffer->begin = b * kBlock;
    buffer->size = std::min(kBlock, input_.n - buffer->begin);
    buffer->marks = negative_marks(input_.labels, buffer->begin, buffer->size, buffer->own_marks);
    Selected& selected = buffer->selected;
    // The last block's kind is likely to be this one's; results are the same either way.
    selected.in_place = selected.matter > kBlock / 2;
    with_dtype(input_.logits.dtype, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* from = static_cast<const T*>(input_.logits.data) + buffer->begin;
      if constexpr (!std::is_same_v<T, double>) {  // which have wide positions
        const float* scores = without_halves(from, buffer->size, buffer->scores);
        buffer->nan |= loops().select(scores, buffer->marks, buffer->size, range_, &selected);
      }
    });
  }

  class Counter {
   public:
    explicit Counter(const NarrowBlocks& blocks)
        : position_(blocks.position_), knots_(blocks.knots_), table_(blocks.ends_, blocks.cells_) {}

    void count(Buffer* buffer, Bin<Narrow::Sum>* bins) const {
      const Selected& selected = buffer->selected;
      table_.look_up(selected.score, selected.size, buffer->segment, loops());
      loops().add_to_bins(selected, buffer->segment, position_, bins);
    }

    // How many knots lie at or below each of the positives.
    std::vector<int32_t> segments(const double* score, const std::vector<int64_t>& positions) const {
      const auto p = static_cast<int64_t>(positions.size());
      std::vector<int32_t> segments(p + kLanes);
      for (int64_t begin = 0; begin < p; begin += kBlock) {
        float scores[kBlock + kLanes];
        const int64_t size = std::min(kBlock, p - begin);
        std::transform(score + begin, score + begin + size, scores,
                       [](double s) { return static_cast<float>(s); });
        std::fill(scores + size, scores + size + kLanes, scores[0]);
        table_.look_up(scores, size, segments.data() + begin, loops());
      }
      segments.resize(p);
      const std::vector<int64_t>& knots = knots_.at;
      for (int64_t r = 0; r < p;
           ++r) {  // a score that lies less than a unit below a knot may have its position
        const int32_t m = segments[r];
        segments[r] += m < static_cast<int64_t>(knots.size()) && knots[m] == positions[r];
      }
      return segments;
    }

   private:
    const Narrow& position_;
    const Knots<int64_t>& knots_;
    SegmentTable table_;
  };

  class Writer {
   public:
    Writer(const NarrowBlocks& blocks, const Spread<int64_t>& spread, double scale)
        : table_(blocks.ends_, blocks.cells_, blocks.knots_, blocks.position_, spread, scale),
          streams_(blocks.input_.n * int64_t{sizeof(float)} >= kStreamBytes) {}

    template <typename T>
    void write(Buffer* buffer, T* out) const {
      const Selected& selected = buffer->selected;
      table_.look_up(selected, buffer->value, loops());
      if constexpr (std::is_same_v<T, float>) {
        const bool stream = streams_ && reinterpret_cast<uintptr_t>(out) % 64 == 0;
        loops().write_values(selected, buffer->value, buffer->size, stream, out);
      } else if constexpr (sizeof(T) == 2) {
        loops().write_values(selected, buffer->value, buffer->size, false, buffer->scores);
        from_floats(buffer->scores, buffer->size, out);
      }
    }

   private:
    ValueTable table_;
    bool streams_;
  };

 private:
  const Input& input_;
  const Narrow& position_;
  const Knots<int64_t>& knots_;
  std::vector<float> ends_;
  Cells cells_;
  Range range_;
};

class WideBlocks {
 public:
  WideBlocks(const Input& input, const WidePositions& position, const Knots<int128>& knots)
      : input_(input), position_(position), knots_(knots) {}

  struct Buffer : Block {
    bool nan = false;  // ever set; hides that of the block
  };

  void read(int64_t b, Buffer* buffer) const {
    read_block(input_, b, buffer);
    buffer->nan |= buffer->Block::nan;
  }

  class Counter {
   public:
    explicit Counter(const WideBlocks& blocks) : blocks_(blocks) {}

    void count(Buffer* buffer, Bin<Wide::Sum>* bins) const {
      blocks_.visit(*buffer, [bins](int64_t, int128 x, int64_t segment) {
        bins[segment].positions += static_cast<Wide::Sum>(x);
        ++bins[segment].count;
      });
    }

    std::vector<int32_t> segments(const double*, const std::vector<int128>& positions) const {
      const std::vector<int128>& knots = blocks_.knots_.at;
      std::vector<int32_t> segments(positions.size());
      size_t m = 0;
      for (size_t r = 0; r < positions.size(); ++r) {
        while (m < knots.size() && knots[m] <= positions[r]) ++m;
        segments[r] = static_cast<int32_t>(m);
      }
      return segments;
    }

   private:
    const WideBlocks& blocks_;
  };

  class Writer {
   public:
    Writer(const WideBlocks& blocks, const Spread<int128>& spread, double scale)
        : blocks_(blocks), spread_(spread), scale_(scale) {}

    template <typename T>
    void write(Buffer* buffer, T* out) const {
      std::fill(out, out + buffer->size, T(0));
      blocks_.visit(*buffer, [&](int64_t column, int128 x, int64_t segment) {
        out[column] = narrow<T>(spread_(blocks_.knots_, x, segment) * scale_);
      });
    }

   private:
    const WideBlocks& blocks_;
    const Spread<int128>& spread_;
    double scale_;
  };

 private:
  // The negatives above the lowest knot.
  template <typename F>
  void visit(const Buffer& buffer, F&& f) const {
    for (int64_t k = 0; k < buffer.negative_count; ++k) {
      const double score = buffer.negatives[k];
      if (score != score) continue;
      const int128 x = position_.of(score);
      if (x >= knots_.at.front()) f(buffer.columns[k], x, knots_.segment(x));
    }
  }

  const Input& input_;
  const WidePositions& position_;
  const Knots<int128>& knots_;
};

template <typename Position>
struct BlocksOf {
  using Type = WideBlocks;
};

template <>
struct BlocksOf<Narrow> {
  using Type = NarrowBlocks;
};

// The positives of a call laid out as positions and knots, which all its stages share.
template <typename Position>
struct Layout {
  using Int = typename Position::Int;

  template <typename... Arguments>
  Layout(const Input& input, const double* score, Arguments... arguments)
      : position{arguments...},
        positions(positions_of(position, score, input.p)),
        knots(positions, half_of(position)),
        blocks(input, position, knots) {}
  Layout(const Layout&) = delete;  // the blocks refer to it

  const Position position;
  const std::vector<Int> positions;  // of the positives
  const Knots<Int> knots;
  const typename BlocksOf<Position>::Type blocks;
};

// f(type, arguments...) with the type of position that fits, and the arguments of a Layout of it but for the first two.
template <typename F>
auto with_position(const Input& input, const double* score, F&& f) {
  if (input.logits.dtype != Dtype::kFloat64 &&
      Narrow::fits(score[0], score[input.p - 1], counted(input), input.delta))
    return f(static_cast<Narrow*>(nullptr), Narrow::make(score[0], counted(input), input.delta));
  return f(static_cast<WidePositions*>(nullptr), score, input.p, input.delta);
}

// Sums of 1 and of the errors over positives, side by side.
struct CountAndErrors {
  double count, errors;

  CountAndErrors& operator+=(const CountAndErrors& other) {
    count += other.count;
    errors += other.errors;
    return *this;
  }
  CountAndErrors& operator-=(const CountAndErrors& other) {
    count -= other.count;
    errors -= other.errors;
    return *this;
  }
  friend CountAndErrors operator+(CountAndErrors a, const CountAndErrors& b) { return a += b; }
  friend CountAndErrors operator-(CountAndErrors a, const CountAndErrors& b) { return a -= b; }
  friend CountAndErrors operator*(const CountAndErrors& a, double factor) {
    return {a.count * factor, a.errors * factor};
  }
};

template <typename Position>
class Form final : public SortedForm {
 public:
  using Int = typename Position::Int;
  using Sum = typename Position::Sum;
  using Blocks = typename BlocksOf<Position>::Type;

  template <typename... Arguments>
  Form(const Input& input, const double* score, Arguments... arguments)
      : input_(input), score_(score), layout_(input, score, arguments...), counter_(layout_.blocks) {}

  void count(double* n_fp, Status* status, const std::function<void()>& meanwhile) const override {
    count_from_bins(layout_.knots, fill_bins(status, meanwhile), n_fp);
  }

  void count_part(int64_t* words, Status* status) const override {
    const std::vector<Bin<Sum>> bins =
        fill_bins(status, [] {});  // equal knots are one: there may be fewer than 2p + 1
    std::fill(words, words + kBinWords * (2 * input_.p + 1), 0);
    for (size_t m = 0; m < bins.size(); ++m) to_words(bins[m], words + kBinWords * m);
  }

  void count_from_parts(const int64_t* words, double* n_fp) const override {
    std::vector<Bin<Sum>> bins(layout_.knots.segments());
    for (size_t m = 0; m < bins.size(); ++m) bins[m] = from_words<Sum>(words + kBinWords * m);
    count_from_bins(layout_.knots, bins, n_fp);
  }

  void pair_sums(const Spec& spec, const Sums& sums) override {
    const int64_t p = input_.p;
    if (!sums.s) {
      sum_above(std::vector<double>(p, 1.0).data(), sums.rank_pos);
    } else {
      std::vector<CountAndErrors> weight(p), sum(p);
      with_dtype(spec.loc_errors.dtype, [&](auto* type) {
        const auto* errors = static_cast<decltype(type)>(spec.loc_errors.data);
        for (int64_t r = 0; r < p; ++r) weight[r] = {1, widen(errors[sums.place[r]])};
      });
      sum_above(weight.data(), sum.data());
      for (int64_t r = 0; r < p; ++r) {
        sums.rank_pos[r] = sum[r].count;
        sums.s[r] = sum[r].errors;
      }
    }
    for (int64_t r = 0; r < p; ++r) sums.rank_pos[r] += 1;
  }

  void pair_product(const double* weights, bool transposed, double* out) override {
    if (transposed)
      sum_below(weights, out);
    else
      sum_above(weights, out);
  }

  void error_gradient(const Sums& sums, const Tables& tables) override {
    const int64_t p = input_.p;
    std::vector<double> weight(p), below(p);
    for (int64_t r = 0; r < p; ++r)
      weight[r] = 1 / ((sums.rank_pos[r] + sums.n_fp[r]) * static_cast<double>(p));
    sum_below(weight.data(), below.data());
    for (int64_t r = 0; r < p; ++r)
      tables.error_gradient[sums.place[r]] = below[r] + weight[r] + *tables.poison;
  }

 private:
  // The bins of all negatives. The first thread to come runs `meanwhile`; the others take over its blocks.
  std::vector<Bin<Sum>> fill_bins(Status* status, const std::function<void()>& meanwhile) const {
    std::vector<Bin<Sum>> total;
    std::mutex mutex;
    std::atomic_flag begun;  // `meanwhile`
    share_out(block_count(input_.n), kPartBlocks, [&](const auto& take) {
      if (!begun.test_and_set(std::memory_order_relaxed)) meanwhile();
      typename Blocks::Buffer buffer;
      std::vector<Bin<Sum>> bins(layout_.knots.segments(), {0, 0});
      take([&](int64_t first, int64_t last) {
        for (int64_t b = first; b < last; ++b) {
          layout_.blocks.read(b, &buffer);
          counter_.count(&buffer, bins.data());
        }
      });
      const std::lock_guard lock(mutex);  // integers: the order of threads does not matter
      status->nan |= buffer.nan;
      if (total.empty()) {
        total = std::move(bins);
        return;
      }
      for (size_t m = 0; m < bins.size(); ++m) {
        total[m].positions += bins[m].positions;
        total[m].count += bins[m].count;
      }
    });
    if (total.empty()) {  // there are no blocks
      meanwhile();
      total.resize(layout_.knots.segments(), {0, 0});
    }
    return total;
  }

  // out[i] = sum over k != i of weight[k] H(s_k - s_i): ramps that fall with s_i.
  template <typename Value>
  void sum_above(const Value* weight, Value* out) {
    const auto& [position, positions, knots, blocks] = layout_;
    const Spread<Int, Value, true> spread(knots, weight);
    const std::vector<int32_t>& segments = this->segments();
    for (int64_t r = 0; r < input_.p; ++r) {
      const int32_t m = segments[r], below = m - (m > 0 && knots.at[m - 1] == positions[r]);
      out[r] = spread(knots, positions[r], below) - weight[r] * at_tie();  // without k = i
    }
  }

  // out[k] = sum over i != k of weight[i] H(s_k - s_i).
  void sum_below(const double* weight, double* out) {
    const auto& [position, positions, knots, blocks] = layout_;
    const Spread spread(knots, weight);
    const std::vector<int32_t>& segments = this->segments();
    for (int64_t r = 0; r < input_.p; ++r)
      out[r] = spread(knots, positions[r], segments[r]) - weight[r] * at_tie();
  }

  // Of each positive: knots at or below it. Made when first asked for: count_part does without.
  const std::vector<int32_t>& segments() {
    if (segments_.empty()) segments_ = counter_.segments(score_, layout_.positions);
    return segments_;
  }

  double at_tie() const { return half_of(layout_.position) ? 0.5 : 1.0; }  // H(0), which k = i has too

  const Input& input_;
  const double* score_;
  const Layout<Position> layout_;
  const typename Blocks::Counter counter_;
  std::vector<int32_t> segments_;
};

}  // namespace

std::unique_ptr<SortedForm> SortedForm::make(const Input& input, const double* score) {
  return with_position(input, score, [&](auto* type, auto... arguments) -> std::unique_ptr<SortedForm> {
    return std::make_unique<Form<std::remove_pointer_t<decltype(type)>>>(input, score, arguments...);
  });
}

void spread_sorted(const Input& input, const Tables& tables, const Gradients& gradients) {
  const double scale = load({const_cast<void*>(gradients.grad_cls), gradients.incoming}, 0);
  const double rest = *tables.poison * scale;  // the gradient of a negative below all knots: 0, or NaN
  with_position(input, tables.score, [&](auto* position, auto... arguments) {
    using Position = std::remove_pointer_t<decltype(position)>;
    using Blocks = typename BlocksOf<Position>::Type;
    const Layout<Position> layout(input, tables.score, arguments...);
    const Spread spread(layout.knots, tables.share);
    const typename Blocks::Writer writer(layout.blocks, spread, scale);
    with_dtype(gradients.logits.dtype, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      share_out(block_count(input.n), kPartBlocks, [&](const auto& take) {
        typename Blocks::Buffer buffer;
        take([&](int64_t first, int64_t last) {
          for (int64_t b = first; b < last; ++b) {
            layout.blocks.read(b, &buffer);
            T* out = static_cast<T*>(gradients.logits.data) + buffer.begin;
            if (rest == 0) {
              writer.write(&buffer, out);
            } else {
              for (int64_t k = 0; k < buffer.size; ++k)
                out[k] = narrow<T>(buffer.marks[k] == Mark::kNegative ? rest : 0.0);
            }
          }
        });
        loops().fence();
      });
    });
  });
}

}  // namespace alrp::cpu

#include "sorted.h"

#include <algorithm>
#include <iterator>
#include <mutex>
#include <vector>

#include "array.h"
#include "blocks.h"
#include "cells.h"
#include "knots.h"
#include "narrow.h"
#include "parallel.h"
#include "positions.h"

namespace alrp::cpu {
namespace {

// Blocks worth a thread of their own.
constexpr int64_t kGrainBlocks = 16;

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
      const float* scores = buffer->scores;
      if constexpr (std::is_same_v<T, float>)
        scores = from;
      else
        std::transform(from, from + buffer->size, buffer->scores, [](T s) { return static_cast<float>(s); });
      buffer->nan |= select(scores, buffer->marks, buffer->size, range_, &selected);
    });
  }

  class Counter {
   public:
    explicit Counter(const NarrowBlocks& blocks)
        : position_(blocks.position_), table_(blocks.ends_, blocks.cells_) {}

    void count(Buffer* buffer, Bin<Narrow::Sum>* bins) const {
      const Selected& selected = buffer->selected;
      table_.look_up(selected.score, selected.size, buffer->segment);
      add_to_bins(selected.score, buffer->segment, selected.size, position_, bins);
    }

   private:
    const Narrow& position_;
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
      table_.look_up(selected.score, selected.size, buffer->value);
      if constexpr (std::is_same_v<T, float>) {
        const bool stream = streams_ && reinterpret_cast<uintptr_t>(out) % 64 == 0;
        write_values(selected, buffer->value, buffer->size, stream, out);
      } else {
        write_values(selected, buffer->value, buffer->size, false, buffer->scores);
        std::transform(buffer->scores, buffer->scores + buffer->size, out,
                       [](float g) { return narrow<T>(g); });
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

template <typename Position>
class Form final : public SortedForm {
 public:
  using Int = typename Position::Int;
  using Sum = typename Position::Sum;
  using Blocks = typename BlocksOf<Position>::Type;

  template <typename... Arguments>
  Form(const Input& input, const double* score, Arguments... arguments)
      : input_(input),
        position_{arguments...},
        positions_(positions_of(position_, score, input.p)),
        knots_(positions_, half_of(position_)),
        blocks_(input, position_, knots_),
        below_(input.p),
        segment_(input.p) {
    const auto count = static_cast<int64_t>(knots_.at.size());
    for (int64_t r = 0, m = 0; r < input.p; ++r) {
      while (m < count && knots_.at[m] < positions_[r]) ++m;
      below_[r] = static_cast<int32_t>(m);
      segment_[r] = static_cast<int32_t>(m + (m < count && knots_.at[m] == positions_[r]));
    }
  }

  void count(double* n_fp, Status* status) const override {
    count_from_bins(knots_, fill_bins(status), n_fp);
  }

  void count_part(int64_t* words, Status* status) const override {
    const std::vector<Bin<Sum>> bins =
        fill_bins(status);  // equal knots are one: there may be fewer than 2p + 1
    std::fill(words, words + kBinWords * (2 * input_.p + 1), 0);
    for (size_t m = 0; m < bins.size(); ++m) to_words(bins[m], words + kBinWords * m);
  }

  void count_from_parts(const int64_t* words, double* n_fp) const override {
    std::vector<Bin<Sum>> bins(knots_.segments());
    for (size_t m = 0; m < bins.size(); ++m) bins[m] = from_words<Sum>(words + kBinWords * m);
    count_from_bins(knots_, bins, n_fp);
  }

  void pair_sums(const Spec& spec, const Sums& sums) const override {
    const int64_t p = input_.p;
    std::vector<double> weight(p, 1.0);
    sum_above(weight.data(), sums.rank_pos);
    for (int64_t r = 0; r < p; ++r) sums.rank_pos[r] += 1;
    if (!sums.s) return;
    for (int64_t r = 0; r < p; ++r) weight[r] = load(spec.loc_errors, sums.place[r]);
    sum_above(weight.data(), sums.s);
  }

  void pair_product(const double* weights, bool transposed, double* out) const override {
    if (transposed)
      sum_below(weights, out);
    else
      sum_above(weights, out);
  }

  void error_gradient(const Sums& sums, const Tables& tables) const override {
    const int64_t p = input_.p;
    std::vector<double> weight(p), below(p);
    for (int64_t r = 0; r < p; ++r)
      weight[r] = 1 / ((sums.rank_pos[r] + sums.n_fp[r]) * static_cast<double>(p));
    sum_below(weight.data(), below.data());
    for (int64_t r = 0; r < p; ++r)
      tables.error_gradient[sums.place[r]] = below[r] + weight[r] + *tables.poison;
  }

  void spread(const Tables& tables, const Gradients& gradients) const override {
    const double scale = load({const_cast<void*>(gradients.grad_cls), gradients.incoming}, 0);
    const double rest = *tables.poison * scale;  // the gradient of a negative below all knots: 0, or NaN
    const Spread spread(knots_, tables.share);
    const typename Blocks::Writer writer(blocks_, spread, scale);
    with_dtype(gradients.logits.dtype, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      parallel_for(0, block_count(input_.n), kGrainBlocks, [&](int64_t first, int64_t last) {
        typename Blocks::Buffer buffer;
        for (int64_t b = first; b < last; ++b) {
          blocks_.read(b, &buffer);
          T* out = static_cast<T*>(gradients.logits.data) + buffer.begin;
          if (rest == 0) {
            writer.write(&buffer, out);
          } else {
            for (int64_t k = 0; k < buffer.size; ++k)
              out[k] = narrow<T>(buffer.marks[k] == Mark::kNegative ? rest : 0.0);
          }
        }
        fence();
      });
    });
  }

 private:
  // The bins of all negatives.
  std::vector<Bin<Sum>> fill_bins(Status* status) const {
    const typename Blocks::Counter counter(blocks_);
    std::vector<Bin<Sum>> total(knots_.segments(), {0, 0});
    std::mutex mutex;
    parallel_for(0, block_count(input_.n), kGrainBlocks, [&](int64_t first, int64_t last) {
      typename Blocks::Buffer buffer;
      std::vector<Bin<Sum>> bins(knots_.segments(), {0, 0});
      for (int64_t b = first; b < last; ++b) {
        blocks_.read(b, &buffer);
        counter.count(&buffer, bins.data());
      }
      const std::lock_guard lock(mutex);  // integers: the order of threads does not matter
      status->nan |= buffer.nan;
      for (size_t m = 0; m < bins.size(); ++m) {
        total[m].positions += bins[m].positions;
        total[m].count += bins[m].count;
      }
    });
    return total;
  }

  // out[i] = sum over k != i of weight[k] H(s_k - s_i). It falls with s_i; in mirrored positions it is a Spread.
  void sum_above(const double* weight, double* out) const {
    const int64_t p = input_.p;
    const Knots<Int> mirrored = knots_.mirrored();
    const std::vector<double> reversed(std::make_reverse_iterator(weight + p),
                                       std::make_reverse_iterator(weight));
    const Spread spread(mirrored, reversed.data());
    for (int64_t r = 0; r < p; ++r) {
      const int64_t segment = mirrored.segments() - 1 - below_[r];
      out[r] = spread(mirrored, -positions_[r], segment) - at_tie() * weight[r];  // without k = i
    }
  }

  // out[k] = sum over i != k of weight[i] H(s_k - s_i).
  void sum_below(const double* weight, double* out) const {
    const Spread spread(knots_, weight);
    for (int64_t r = 0; r < input_.p; ++r)
      out[r] = spread(knots_, positions_[r], segment_[r]) - at_tie() * weight[r];
  }

  double at_tie() const { return half_of(position_) ? 0.5 : 1.0; }  // H(0), which k = i has too

  const Input& input_;
  const Position position_;
  const std::vector<Int> positions_;  // of the positives
  const Knots<Int> knots_;
  const Blocks blocks_;
  std::vector<int32_t> below_, segment_;  // of each positive: knots below it, and at or below it
};

}  // namespace

std::unique_ptr<SortedForm> SortedForm::make(const Input& input, const double* score) {
  if (input.logits.dtype != Dtype::kFloat64 &&
      Narrow::fits(score[0], score[input.p - 1], counted(input), input.delta))
    return std::make_unique<Form<Narrow>>(input, score, Narrow::make(score[0], counted(input), input.delta));
  return std::make_unique<Form<WidePositions>>(input, score, score, input.p, input.delta);
}

}  // namespace alrp::cpu

#include "sorted.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "array.h"
#include "blocks.h"
#include "knots.h"
#include "narrow.h"
#include "positions.h"

namespace alrp::cpu::sorted {
namespace {

// Blocks worth a thread of their own.
constexpr int64_t kGrainBlocks = 8;

// Calls f with the positions that fit these positives: Narrow where it may, else Wide.
template <typename F>
void with_positions(const Input& input, const double* score, F&& f) {
  if (input.logits.dtype != Dtype::kFloat64 &&
      Narrow::fits(score[0], score[input.p - 1], input.n, input.delta))
    f(Narrow::make(score[0], input.n, input.delta));
  else
    f(WidePositions(score, input.p, input.delta));
}

int64_t half_of(const Narrow& position) { return position.half; }

int128 half_of(const WidePositions& position) { return position.half(); }

template <typename Position>
std::vector<typename Position::Int> positions_of(const Position& position, const double* score, int64_t p) {
  std::vector<typename Position::Int> positions(p);
  std::transform(score, score + p, positions.begin(), [&](double s) { return position.of(s); });
  return positions;
}

// What the two forms do with blocks of logits: read a block, bin its negatives, and write its gradients.
class NarrowBlocks {
 public:
  NarrowBlocks(const Input& input, const Narrow& position, const Knots<int64_t>& knots)
      : input_(input),
        knots_(knots),
        grid_(knots, input.n),
        quantiser_{position.scale, position.offset, knots.at.front(), grid_.highest()} {}

  struct Buffer {
    int64_t begin, size;
    bool nan = false;   // ever set
    const Mark* marks;  // told apart as far as negative or not
    Mark own_marks[kBlock];
    float scores[kBlock];
    Quantised quantised;
    int32_t segment[kBlock + kSlack];
    float value[kBlock + kSlack];
  };

  void read(int64_t b, Buffer* buffer) const {
    buffer->begin = b * kBlock;
    buffer->size = std::min(kBlock, input_.n - buffer->begin);
    buffer->marks = negative_marks(input_.labels, buffer->begin, buffer->size, buffer->own_marks);
    with_dtype(input_.logits.dtype, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* from = static_cast<const T*>(input_.logits.data) + buffer->begin;
      const float* scores = buffer->scores;
      if constexpr (std::is_same_v<T, float>)
        scores = from;
      else
        std::transform(from, from + buffer->size, buffer->scores, [](T s) { return static_cast<float>(s); });
      quantise(scores, buffer->marks, buffer->size, quantiser_, &buffer->quantised, &buffer->nan);
    });
    grid_.segments(buffer->quantised.position, buffer->quantised.size, buffer->segment);
  }

  void bin(const Buffer& buffer, Bin<Narrow::Sum>* bins) const {
    for (int64_t k = 0; k < buffer.quantised.size; ++k) {
      Bin<Narrow::Sum>& bin = bins[buffer.segment[k]];
      bin.positions += static_cast<Narrow::Sum>(buffer.quantised.position[k]);
      ++bin.count;
    }
  }

  // The spread in the layout that write() looks values up in.
  class Values {
   public:
    Values(const NarrowBlocks& blocks, const Spread<int64_t>& spread, double scale) {
      const Knots<int64_t>& knots = blocks.knots_;
      const auto width = static_cast<double>(2 * knots.half);
      per_step = static_cast<float>(1 / width);
      records.assign(knots.segments(), {0, 0, 0});
      for (int64_t m = 1; m < knots.segments(); ++m)
        records[m] = {knots.at[m - 1], static_cast<float>(spread.base[m] * scale),
                      static_cast<float>(spread.slope[m] * width * scale)};
    }
    std::vector<Record> records;
    float per_step;
  };

  template <typename T>
  void write(const Values& values, Buffer* buffer, T* out) const {
    const Quantised& quantised = buffer->quantised;
    evaluate(values.records.data(), values.per_step, quantised.position, buffer->segment, quantised.size,
             buffer->value);
    if constexpr (std::is_same_v<T, float>) {
      expand(buffer->value, quantised.keep, buffer->size, out);
    } else {
      expand(buffer->value, quantised.keep, buffer->size, buffer->scores);
      std::transform(buffer->scores, buffer->scores + buffer->size, out,
                     [](float g) { return narrow<T>(g); });
    }
  }

 private:
  const Input& input_;
  const Knots<int64_t>& knots_;
  Grid grid_;
  Quantiser quantiser_;
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

  void bin(const Buffer& buffer, Bin<Wide::Sum>* bins) const {
    visit(buffer, [bins](int64_t, int128 x, int64_t segment) {
      bins[segment].positions += static_cast<Wide::Sum>(x);
      ++bins[segment].count;
    });
  }

  struct Values {
    Values(const WideBlocks&, const Spread<int128>& of, double by) : spread(of), scale(by) {}
    const Spread<int128>& spread;
    double scale;
  };

  template <typename T>
  void write(const Values& values, Buffer* buffer, T* out) const {
    std::fill(out, out + buffer->size, T(0));
    visit(*buffer, [&](int64_t column, int128 x, int64_t segment) {
      out[column] = narrow<T>(values.spread(knots_, x, segment) * values.scale);
    });
  }

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

NarrowBlocks blocks_of(const Input& input, const Narrow& position, const Knots<int64_t>& knots) {
  return {input, position, knots};
}

WideBlocks blocks_of(const Input& input, const WidePositions& position, const Knots<int128>& knots) {
  return {input, position, knots};
}

}  // namespace

void count(const Input& input, const double* score, double* n_fp, Status* status) {
  with_positions(input, score, [&](const auto& position) {
    using Position = std::decay_t<decltype(position)>;
    using Sum = typename Position::Sum;
    const Knots knots(positions_of(position, score, input.p), half_of(position));
    const auto blocks = blocks_of(input, position, knots);
    std::vector<Bin<Sum>> total(knots.segments(), {0, 0});
    std::mutex mutex;
    at::parallel_for(0, block_count(input.n), kGrainBlocks, [&](int64_t first, int64_t last) {
      typename std::decay_t<decltype(blocks)>::Buffer buffer;
      std::vector<Bin<Sum>> bins(knots.segments(), {0, 0});
      for (int64_t b = first; b < last; ++b) {
        blocks.read(b, &buffer);
        blocks.bin(buffer, bins.data());
      }
      const std::lock_guard lock(mutex);  // integers: the order of threads does not matter
      status->nan |= buffer.nan;
      for (size_t m = 0; m < bins.size(); ++m) {
        total[m].positions += bins[m].positions;
        total[m].count += bins[m].count;
      }
    });
    count_from_bins(knots, total, n_fp);
  });
}

void pair_sums(const Input& input, const Spec& spec, const double* score, const Sums& sums) {
  const int64_t p = input.p;
  with_positions(input, score, [&](const auto& position) {
    // sum over k of w_k H(s_k - s_i) falls with s_i. In mirrored positions it is a Spread.
    auto mirrored = positions_of(position, score, p);
    std::reverse(mirrored.begin(), mirrored.end());
    for (auto& x : mirrored) x = -x;
    const Knots knots(mirrored, half_of(position));
    const double self = half_of(position) ? 0.5 : 1.0;  // H(0)
    const auto sum = [&](const std::vector<double>& weight, double* out) {
      const Spread spread(knots, weight.data());
      for (int64_t i = 0, m = 0; i < p; ++i) {
        while (m < static_cast<int64_t>(knots.at.size()) && knots.at[m] <= mirrored[i]) ++m;
        out[p - 1 - i] = spread(knots, mirrored[i], m) - self * weight[i];  // without k = i
      }
    };
    std::vector<double> weight(p, 1.0);
    sum(weight, sums.rank_pos);
    for (int64_t r = 0; r < p; ++r) sums.rank_pos[r] += 1;
    if (!sums.s) return;
    for (int64_t r = 0; r < p; ++r) weight[p - 1 - r] = load(spec.loc_errors, sums.place[r]);
    sum(weight, sums.s);
  });
}

void error_gradient(const Input& input, const Sums& sums, const Tables& tables) {
  const int64_t p = input.p;
  with_positions(input, tables.score, [&](const auto& position) {
    const auto positions = positions_of(position, tables.score, p);
    const Knots knots(positions, half_of(position));
    std::vector<double> weight(p);
    for (int64_t r = 0; r < p; ++r)
      weight[r] = 1 / ((sums.rank_pos[r] + sums.n_fp[r]) * static_cast<double>(p));
    const Spread spread(knots, weight.data());
    const double self = half_of(position) ? 0.5 : 1.0;  // H(0), where k = i has 1
    for (int64_t r = 0, m = 0; r < p; ++r) {
      while (m < static_cast<int64_t>(knots.at.size()) && knots.at[m] <= positions[r]) ++m;
      tables.error_gradient[sums.place[r]] =
          spread(knots, positions[r], m) + (1 - self) * weight[r] + *tables.poison;
    }
  });
}

void spread(const Input& input, const Tables& tables, const Gradients& gradients) {
  const double scale = load({const_cast<void*>(gradients.grad_cls), gradients.incoming}, 0);
  const double rest = *tables.poison * scale;  // the gradient of a negative below all knots: 0, or NaN
  with_positions(input, tables.score, [&](const auto& position) {
    const Knots knots(positions_of(position, tables.score, input.p), half_of(position));
    const auto blocks = blocks_of(input, position, knots);
    const Spread spread(knots, tables.share);
    const typename std::decay_t<decltype(blocks)>::Values values(blocks, spread, scale);
    with_dtype(gradients.logits.dtype, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      at::parallel_for(0, block_count(input.n), kGrainBlocks, [&](int64_t first, int64_t last) {
        typename std::decay_t<decltype(blocks)>::Buffer buffer;
        for (int64_t b = first; b < last; ++b) {
          blocks.read(b, &buffer);
          T* out = static_cast<T*>(gradients.logits.data) + buffer.begin;
          if (rest == 0) {
            blocks.write(values, &buffer, out);
          } else {
            for (int64_t k = 0; k < buffer.size; ++k)
              out[k] = narrow<T>(buffer.marks[k] == Mark::kNegative ? rest : 0.0);
          }
        }
      });
    });
  });
}

}  // namespace alrp::cpu::sorted

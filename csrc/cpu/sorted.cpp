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

// Reads blocks of logits and visits their negatives above the lowest knot with position and segment.
class NarrowReader {
 public:
  NarrowReader(const Input& input, const Narrow& position, const Knots<int64_t>& knots)
      : input_(input),
        grid_(knots, input.n),
        quantiser_{position.origin, position.scale, static_cast<double>(knots.at.front()),
                   static_cast<double>(grid_.highest())} {}

  struct Buffer {
    Mark marks[kBlock];
    int64_t begin, size;
    bool nan = false;  // ever set
    float scores[kBlock];
    Quantised quantised;
  };

  void read(int64_t b, Buffer* buffer) const {
    buffer->begin = b * kBlock;
    buffer->size = std::min(kBlock, input_.n - buffer->begin);
    read_marks(input_.labels, buffer->begin, buffer->size, buffer->marks);
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
  }

  template <typename F>
  void visit(const Buffer& buffer, F&& f) const {
    const Quantised& quantised = buffer.quantised;
    for (int64_t k = 0; k < quantised.size; ++k)
      f(quantised.column[k], quantised.position[k], grid_.segment(quantised.position[k]));
  }

 private:
  const Input& input_;
  Grid grid_;
  Quantiser quantiser_;
};

class WideReader {
 public:
  WideReader(const Input& input, const WidePositions& position, const Knots<int128>& knots)
      : input_(input), position_(position), knots_(knots) {}

  struct Buffer : Block {
    bool nan = false;  // ever set; hides that of the block
  };

  void read(int64_t b, Buffer* buffer) const {
    read_block(input_, b, buffer);
    buffer->nan |= buffer->Block::nan;
  }

  template <typename F>
  void visit(const Buffer& buffer, F&& f) const {
    for (int64_t k = 0; k < buffer.negative_count; ++k) {
      const double score = buffer.negatives[k];
      if (score != score) continue;
      const int128 x = position_.of(score);
      if (x >= knots_.at.front()) f(buffer.columns[k], x, knots_.segment(x));
    }
  }

 private:
  const Input& input_;
  const WidePositions& position_;
  const Knots<int128>& knots_;
};

NarrowReader reader(const Input& input, const Narrow& position, const Knots<int64_t>& knots) {
  return {input, position, knots};
}

WideReader reader(const Input& input, const WidePositions& position, const Knots<int128>& knots) {
  return {input, position, knots};
}

// The values of a Spread as float, in the layout of one look-up: 16 bytes a segment.
class NarrowValues {
 public:
  NarrowValues(const Knots<int64_t>& knots, const Spread<int64_t>& spread, double scale)
      : records_(knots.segments()), per_step_(static_cast<float>(1 / static_cast<double>(2 * knots.half))) {
    records_[0] = {0, 0, 0};
    // Slopes are kept per step, not per unit: a small gradient must not fall among float's subnormal numbers.
    for (int64_t m = 1; m < knots.segments(); ++m)
      records_[m] = {knots.at[m - 1], static_cast<float>(spread.base[m] * scale),
                     static_cast<float>(spread.slope[m] * static_cast<double>(2 * knots.half) * scale)};
  }

  float operator()(int64_t x, int64_t segment) const {
    const Record& r = records_[segment];
    return r.base + r.slope * (static_cast<float>(x - r.from) * per_step_);
  }

 private:
  struct Record {
    int64_t from;
    float base, slope;
  };
  std::vector<Record> records_;
  float per_step_;
};

class WideValues {
 public:
  WideValues(const Knots<int128>& knots, const Spread<int128>& spread, double scale)
      : knots_(knots), spread_(spread), scale_(scale) {}

  double operator()(int128 x, int64_t segment) const { return spread_(knots_, x, segment) * scale_; }

 private:
  const Knots<int128>& knots_;
  const Spread<int128>& spread_;
  double scale_;
};

NarrowValues values(const Knots<int64_t>& knots, const Spread<int64_t>& spread, double scale) {
  return {knots, spread, scale};
}

WideValues values(const Knots<int128>& knots, const Spread<int128>& spread, double scale) {
  return {knots, spread, scale};
}

}  // namespace

void count(const Input& input, const double* score, double* n_fp, Status* status) {
  with_positions(input, score, [&](const auto& position) {
    using Position = std::decay_t<decltype(position)>;
    using Sum = typename Position::Sum;
    const Knots knots(positions_of(position, score, input.p), half_of(position));
    const auto blocks = reader(input, position, knots);
    std::vector<Bin<Sum>> total(knots.segments(), {0, 0});
    std::mutex mutex;
    at::parallel_for(0, block_count(input.n), kGrainBlocks, [&](int64_t first, int64_t last) {
      typename std::decay_t<decltype(blocks)>::Buffer buffer;
      std::vector<Bin<Sum>> bins(knots.segments(), {0, 0});
      for (int64_t b = first; b < last; ++b) {
        blocks.read(b, &buffer);
        blocks.visit(buffer, [bins = bins.data()](int32_t, auto x, int64_t segment) {
          bins[segment].positions += static_cast<Sum>(x);
          ++bins[segment].count;
        });
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
    const auto blocks = reader(input, position, knots);
    const Spread spread(knots, tables.share);
    const auto value = values(knots, spread, scale);
    with_dtype(gradients.logits.dtype, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      at::parallel_for(0, block_count(input.n), kGrainBlocks, [&](int64_t first, int64_t last) {
        typename std::decay_t<decltype(blocks)>::Buffer buffer;
        for (int64_t b = first; b < last; ++b) {
          blocks.read(b, &buffer);
          T* out = static_cast<T*>(gradients.logits.data) + buffer.begin;
          std::fill(out, out + buffer.size, T(0));
          if (rest != 0)
            for (int64_t k = 0; k < buffer.size; ++k)
              if (buffer.marks[k] == Mark::kNegative) out[k] = narrow<T>(rest);
          if (*tables.poison != 0) continue;
          blocks.visit(buffer, [&value, out](int32_t column, auto x, int64_t segment) {
            out[column] = narrow<T>(value(x, segment));
          });
        }
      });
    });
  });
}

}  // namespace alrp::cpu::sorted

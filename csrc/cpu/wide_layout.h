// The sorted form on wide positions: how a block of logits is read, counted and given its gradients.
#pragma once

#include <algorithm>

#include "array.h"
#include "blocks.h"
#include "layout.h"
#include "positions.h"
#include "ramp_sum.h"

namespace alrp::cpu {

class WideLayout : public Layout<WidePositions> {
 public:
  using Buffer = Block;

  WideLayout(const Input& input, const double* score)
      : Layout(input, score, WidePositions(score, input.p, input.delta)) {}

  void read(int64_t b, bool, Buffer* buffer) const { read_block(input, b, buffer); }

  // Adds the negatives of a block to the bins of their segments.
  auto counter() const {
    return [this](const Buffer& buffer, Bin<Sum>* bins) {
      visit(buffer, [bins](int64_t, Int x, int64_t segment) {
        bins[segment] = bins[segment] + Bin<Sum>{static_cast<Sum>(x), 1};
      });
    };
  }

  // Blocks hold nothing but negatives.
  template <typename Counter, typename Bins>
  void take_out_others(const Tables&, const Counter&, Status*, Bins*) const {}

  // Writes the gradients of a block: `scale` times the sum of the ramps for the negatives, else 0.
  auto writer(const RampSum<Int>& ramps, double scale) const {
    return [this, &ramps, scale]<typename T>(const Buffer& buffer, T* out) {
      std::fill(out, out + buffer.size, T(0));
      visit(buffer, [&](int64_t column, Int x, int64_t segment) {
        out[column] = rounded<T>(ramps(knots, x, segment) * scale);
      });
    };
  }

 private:
  // f(place in the block, position, segment) for the negatives from the lowest knot on.
  template <typename F>
  void visit(const Buffer& buffer, const F& f) const {
    for (int64_t k = 0; k < buffer.negative_count; ++k) {
      const double score = buffer.negatives[k];
      if (score != score) continue;
      const Int x = position.of(score);
      if (x >= knots.at.front()) f(buffer.columns[k], x, knots.segment(x));
    }
  }
};

}  // namespace alrp::cpu

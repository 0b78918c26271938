// The sorted form on wide positions: how a block of logits is read, counted and given its gradients.
#pragma once

#include "blocks.h"
#include "layout.h"
#include "maps.h"
#include "positions.h"
#include "ramp_sum.h"
#include "wide_segments.h"

namespace alrp::cpu {

class WideLayout : public Layout<WidePositions> {
 public:
  using Buffer = Block;

  WideLayout(const Input& input, const double* score)
      : Layout(input, score, WidePositions(score, input.p, input.delta)),
        segments_(knots, position, score, input.delta) {}

  int64_t blocks() const { return block_count(input.n); }

  void read(int64_t b, bool, Buffer* buffer) const { read_block(input, b, buffer); }

  // Adds the negatives of a block to the bins of their segments; their positions, where these count.
  auto counter() const {
    return [this](const Buffer& buffer, Bin<Sum>* bins) {
      for (int64_t k = 0; k < buffer.negative_count; ++k) {
        const double score = buffer.negatives[k];
        const int32_t m = segments_(score);
        if (m == 0) continue;
        const Int x = segments_.is_sloped(m) ? segments_.position(m, score) : 0;
        bins[m] = bins[m] + Bin<Sum>{static_cast<Sum>(x), 1};
      }
    };
  }

  // Blocks hold nothing but negatives.
  template <typename Counter, typename Bins>
  void take_out_others(const Tables&, const Counter&, Status*, Bins*) const {}

  // Writes the gradients of a block: `scale` times the sum of the ramps for the negatives, else 0.
  auto writer(const RampSum<Int>& ramps, double scale) const {
    return [this, &ramps, scale](const Buffer& buffer) {
      write_negatives(input, buffer, [&](int64_t k) {
        const double score = buffer.negatives[k];
        const int32_t m = segments_(score);
        if (m == 0) return 0.0;
        const double past = segments_.is_sloped(m) ? segments_.past_knot(m, score) : 0;
        return (ramps.base[m] + ramps.slope[m] * past) * scale;
      });
    };
  }

  // `value` as the gradient of all logits of a block.
  void fill(const Buffer& buffer, double value) const {
    fill_gradients(input, buffer.begin, buffer.size, value);
  }

 private:
  const WideSegments segments_;
};

}  // namespace alrp::cpu

// The sorted form on wide positions: how a block of logits is read, counted and given its gradients.
#pragma once

#include <algorithm>

#include "array.h"
#include "blocks.h"
#include "layout.h"
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

  void read(int64_t b, bool, Buffer* buffer) const { read_block(input, b, buffer); }

  // Adds the negatives of a block to the bins of their segments; their positions, where these count.
  auto counter() const {
    return [this](const Buffer& buffer, Bin<Sum>* bins) {
      visit(buffer, [&](int64_t, double score, int32_t m) {
        const Int x = segments_.is_sloped(m) ? segments_.position(m, score) : 0;
        bins[m] = bins[m] + Bin<Sum>{static_cast<Sum>(x), 1};
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
      visit(buffer, [&](int64_t column, double score, int32_t m) {
        const double past = segments_.is_sloped(m) ? segments_.past_knot(m, score) : 0;
        out[column] = rounded<T>((ramps.base[m] + ramps.slope[m] * past) * scale);
      });
    };
  }

 private:
  // f(place in the block, score, segment) for the negatives from the lowest knot on.
  template <typename F>
  void visit(const Buffer& buffer, const F& f) const {
    for (int64_t k = 0; k < buffer.negative_count; ++k)
      if (const int32_t m = segments_(buffer.negatives[k])) f(buffer.columns[k], buffer.negatives[k], m);
  }

  const WideSegments segments_;
};

}  // namespace alrp::cpu

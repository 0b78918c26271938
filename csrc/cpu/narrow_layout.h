// The sorted form on narrow positions.
#pragma once

#include "float_layout.h"
#include "ramp_sum.h"

namespace alrp::cpu {

struct NarrowLayout : FloatLayout<Narrow> {
  static bool fits(const Input& input, const double* score) {
    return input.logits.dtype != Dtype::kFloat64 &&
           Narrow::fits(score[0], score[input.p - 1], counted(input), input.delta);
  }

  NarrowLayout(const Input& input, const double* score)
      : NarrowLayout(input, score, Narrow::make(score[0], counted(input), input.delta)) {}

  // Writes the gradients of a block: `scale` times the sum of the ramps, whatever the labels.
  auto writer(const RampSum<Int>& ramps, double scale) const {
    return [this, table = ValueTable(ends(), cells(), knots, position, ramps, scale)](Buffer& buffer) {
      loops().look_up_values(table, buffer.selected, buffer.value);
      write(buffer);
    };
  }

 private:
  NarrowLayout(const Input& input, const double* score, const Narrow& own)
      : FloatLayout(input, score, own, own) {}
};

}  // namespace alrp::cpu

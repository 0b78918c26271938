// The sorted form on narrow positions: how a block of logits is read, counted and given its gradients.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "array.h"
#include "blocks.h"
#include "cells.h"
#include "halves.h"
#include "layout.h"
#include "loops.h"
#include "ramp_sum.h"

namespace alrp::cpu {

class NarrowLayout : public Layout<Narrow> {
 public:
  struct Buffer {
    int64_t begin, size;
    bool nan = false;   // a negative of any block that it has held
    const Mark* marks;  // of negative_marks()
    Mark own_marks[kBlockLogits];
    float scores[kBlockLogits];
    Selected selected;
    int32_t segment[kBlockLogits + kLanes];
    float value[2 * kBlockLogits];  // write_values() reads a vector from any
  };

  static bool fits(const Input& input, const double* score) {
    return input.logits.dtype != Dtype::kFloat64 &&
           Narrow::fits(score[0], score[input.p - 1], counted(input), input.delta);
  }

  NarrowLayout(const Input& input, const double* score)
      : Layout(input, score, Narrow::make(score[0], counted(input), input.delta)),
        ends_(knots, position),
        cells_(ends_, counted(input)) {}  // not input.n: what is written depends on the cells

  void read(int64_t b, Buffer* buffer) const {
    buffer->begin = b * kBlockLogits;
    buffer->size = std::min(kBlockLogits, input.n - buffer->begin);
    buffer->marks = negative_marks(input.labels, buffer->begin, buffer->size, buffer->own_marks);
    Selected& selected = buffer->selected;
    // The last block's kind is likely to be this one's; results are the same either way.
    selected.in_place = selected.matter > kBlockLogits / 2;
    with_dtype(input.logits.dtype, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* from = static_cast<const T*>(input.logits.data) + buffer->begin;
      if constexpr (!std::is_same_v<T, double>) {  // which have wide positions
        const float* scores = without_halves(from, buffer->size, buffer->scores);
        const Range range{cells_.below, ends_.lowest(), ends_.highest()};
        buffer->nan |= loops().select(scores, buffer->marks, buffer->size, range, &selected);
      }
    });
  }

  // Adds the negatives of a block to the bins of their segments.
  auto counter() const {
    return [this, table = SegmentTable(ends_, cells_)](Buffer& buffer, Bin<Sum>* bins) {
      loops().look_up_segments(table, buffer.selected, buffer.segment);
      loops().add_to_bins(buffer.selected, buffer.segment, position, bins);
    };
  }

  // Writes the gradients of a block: `scale` times the sum of the ramps for the negatives, else 0.
  auto writer(const RampSum<Int>& ramps, double scale) const {
    // Gradients of this size do not fit a core's own cache: written past it, they leave it to the tables.
    constexpr int64_t kStreamBytes = int64_t{1} << 21;
    const bool streams = input.n * int64_t{sizeof(float)} >= kStreamBytes;
    return [table = ValueTable(ends_, cells_, knots, position, ramps, scale), streams]<typename T>(
               Buffer& buffer, T* out) {
      loops().look_up_values(table, buffer.selected, buffer.value);
      if constexpr (std::is_same_v<T, float>) {
        const bool stream = streams && reinterpret_cast<uintptr_t>(out) % 64 == 0;
        loops().write_values(buffer.selected, buffer.value, buffer.size, stream, out);
      } else if constexpr (sizeof(T) == 2) {
        loops().write_values(buffer.selected, buffer.value, buffer.size, false, buffer.scores);
        from_floats(buffer.scores, buffer.size, out);
      }
    };
  }

 private:
  const Ends ends_;
  const Cells cells_;
};

}  // namespace alrp::cpu

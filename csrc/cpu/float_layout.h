// The sorted form on scores that are compared as floats: how a block of logits is read and counted, and how its
// gradients are written.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <mutex>
#include <type_traits>
#include <vector>

#include "array.h"
#include "blocks.h"
#include "cells.h"
#include "halves.h"
#include "label_walk.h"
#include "layout.h"
#include "loops.h"

namespace alrp::cpu {

// ends_of(knots, Position) are the floats at which segments end; `addends` has what scores add to their bins.
template <typename Position>
class FloatLayout : public Layout<Position> {
 public:
  using typename Layout<Position>::Sum;
  using Layout<Position>::input;
  using Layout<Position>::knots;
  using Layout<Position>::position;

  struct Buffer {
    int64_t begin, size;
    int64_t nan = 0;  // scores of all blocks that it has held
    float scores[kBlockLogits];
    Selected selected;
    int32_t segment[kBlockLogits + kLanes];
    float value[2 * kBlockLogits];  // write_values() reads a vector from any
  };

  FloatLayout(const Input& input, const double* score, Position own, const Narrow& addends)
      : Layout<Position>(input, score, own),
        addends_(addends),
        ends_(ends_of(knots, position)),
        cells_(ends_, counted(input)) {}  // not input.n: what is written depends on the cells

  // `ignored`: whether labels may say so. Where each logit has its own, what is ignored is put below all knots.
  void read(int64_t b, bool ignored, Buffer* buffer) const {
    buffer->begin = b * kBlockLogits;
    buffer->size = std::min(kBlockLogits, input.n - buffer->begin);
    with_dtype(input.logits.dtype, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* from = static_cast<const T*>(this->input.logits.data) + buffer->begin;
      if constexpr (!std::is_same_v<T, double>) {  // which have wide positions
        const float* scores = without_halves(from, buffer->size, buffer->scores);
        if (ignored && !this->input.labels.classes) scores = without_ignored(scores, buffer);
        select(scores, buffer);
      }
    });
  }

  // Adds the logits of a block to the bins of their segments, whatever their labels.
  auto counter() const {
    return [this, table = SegmentTable(ends_, cells_)](Buffer& buffer, Bin<Sum>* bins) {
      loops().look_up_segments(table, buffer.selected, buffer.segment);
      loops().add_to_bins(buffer.selected, buffer.segment, addends_, bins);
    };
  }

  // Takes out of the bins, and of status.nan, what is no negative: the positives among these logits, and rows
  // that are ignored. Integers cancel.
  template <typename Counter>
  void take_out_others(const Tables& tables, const Counter& counter, Status* status,
                       std::vector<Bin<Sum>>* bins) const {
    std::mutex mutex;
    const auto take_out = [&](const auto& each) {
      Buffer buffer;
      buffer.size = 0;
      std::vector<Bin<Sum>> own(bins->size());
      const auto count = [&] {
        select(buffer.scores, &buffer);
        counter(buffer, own.data());
        buffer.size = 0;
      };
      each([&](const auto* scores, int64_t size) {
        while (size) {
          const int64_t some = std::min(size, kBlockLogits - buffer.size);
          std::copy_n(scores, some, buffer.scores + buffer.size);  // floats as exact as they were
          scores += some, size -= some, buffer.size += some;
          if (buffer.size == kBlockLogits) count();
        }
      });
      count();
      const std::lock_guard lock(mutex);
      status->nan -= buffer.nan;
      for (size_t m = 0; m < own.size(); ++m) (*bins)[m] = (*bins)[m] - own[m];
    };
    take_out([&](const auto& f) {
      for (int64_t r = 0; r < input.p; ++r)
        if (tables.index[r] >= 0) f(tables.score + r, 1);
    });
    if (!status->ignored || !input.labels.classes) return;
    with_dtype(input.logits.dtype, [&](auto* type) {
      const auto* logits = static_cast<decltype(type)>(input.logits.data);
      on_each_thread(chunk_count(input.labels, input.n), 1, [&](const auto& take) {
        take_out([&](const auto& f) {
          take([&](int64_t c) {
            walk_chunk(input.labels, input.n, c, [&](Mark mark, int64_t first, int64_t size) {
              if (mark == Mark::kIgnored) f(logits + first, size);
            });
          });
        });
      });
    });
  }

  // Writes what buffer.value has for the scores of a block.
  template <typename T>
  void write(Buffer& buffer, T* out) const {
    // Gradients of this size do not fit a core's own cache: written past it, they leave it to the tables.
    constexpr int64_t kStreamBytes = int64_t{1} << 21;
    if constexpr (std::is_same_v<T, float>) {
      const bool stream =
          input.n * int64_t{sizeof(float)} >= kStreamBytes && reinterpret_cast<uintptr_t>(out) % 64 == 0;
      loops().write_values(buffer.selected, buffer.value, buffer.size, stream, out);
    } else if constexpr (sizeof(T) == 2) {
      loops().write_values(buffer.selected, buffer.value, buffer.size, false, buffer.scores);
      from_floats(buffer.scores, buffer.size, out);
    }
  }

 protected:
  const Ends& ends() const { return ends_; }
  const Cells& cells() const { return cells_; }

 private:
  const float* without_ignored(const float* scores, Buffer* buffer) const {
    Mark marks[kBlockLogits];
    read_marks(input.labels, buffer->begin, buffer->size, marks);
    for (int64_t k = 0; k < buffer->size; ++k)
      buffer->scores[k] = marks[k] == Mark::kIgnored ? -std::numeric_limits<float>::infinity() : scores[k];
    return buffer->scores;
  }

  // Of `buffer->size` scores.
  void select(const float* scores, Buffer* buffer) const {
    Selected& selected = buffer->selected;
    // The last block's kind is likely to be this one's; results are the same either way.
    selected.in_place = selected.matter > kBlockLogits / 2;
    const Range range{cells_.below, ends_.lowest(), ends_.highest()};
    buffer->nan += loops().select(scores, buffer->size, range, &selected);
  }

  const Narrow addends_;
  const Ends ends_;
  const Cells cells_;
};

}  // namespace alrp::cpu

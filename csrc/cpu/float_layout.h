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
#include "cells.h"
#include "halves.h"
#include "label_walk.h"
#include "layout.h"
#include "loops.h"
#include "maps.h"

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
    MemoryBlocks::Range block;
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
        cells_(ends_, counted(input)),  // not input.n: what is written depends on the cells
        blocks_(input) {}

  int64_t blocks() const { return blocks_.count(); }

  // `ignored`: whether labels may say so. Where blocks know their labels, what is ignored is put below all knots.
  void read(int64_t b, bool ignored, Buffer* buffer) const {
    buffer->block = blocks_[b];
    const auto& [map, begin, size] = buffer->block;
    with_dtype(input.logits.dtype, [&, &map = map, begin = begin, size = size](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      if constexpr (!std::is_same_v<T, double>) {  // which have wide positions
        const T* from = static_cast<const T*>(map.logits) + begin;
        const float* scores = without_halves(from, size, buffer->scores);
        if (ignored && has_labels(map, this->input.labels)) scores = without_ignored(scores, buffer);
        select(scores, size, buffer);
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

  // Takes out of the bins, and of status.nan, what is no negative: the positives among these logits, and what is
  // ignored but for that which read() has put below all knots. Integers cancel.
  template <typename Counter>
  void take_out_others(const Tables& tables, const Counter& counter, Status* status,
                       std::vector<Bin<Sum>>* bins) const {
    std::mutex mutex;
    const auto take_out = [&](const auto& each) {
      Buffer buffer;
      int64_t size = 0;
      std::vector<Bin<Sum>> own(bins->size());
      const auto count = [&] {
        select(buffer.scores, size, &buffer);
        counter(buffer, own.data());
        size = 0;
      };
      each([&](auto score) {
        buffer.scores[size++] = static_cast<float>(score);  // as exact as it was
        if (size == kBlockLogits) count();
      });
      count();
      const std::lock_guard lock(mutex);
      status->nan -= buffer.nan;
      for (size_t m = 0; m < own.size(); ++m) (*bins)[m] = (*bins)[m] - own[m];
    };
    take_out([&](const auto& f) {
      for (int64_t r = 0; r < input.p; ++r)
        if (tables.index[r] >= 0) f(tables.score[r]);
    });
    if (!status->ignored || all_have_labels(input.logits, input.labels)) return;
    with_dtype(input.logits.dtype, [&](auto* type) {
      on_each_thread(chunk_count(input.labels, input.n), 1, [&](const auto& take) {
        take_out([&](const auto& f) {
          take([&](int64_t c) {
            walk_chunk(input.labels, input.n, c, [&](Mark mark, int64_t first, int64_t size) {
              if (mark != Mark::kIgnored) return;
              each_run(input, first, size, [&](const Map& map, int64_t offset, int64_t stride, int64_t run) {
                if (has_labels(map, input.labels)) return;
                const auto* from = static_cast<decltype(type)>(map.logits) + offset;
                for (int64_t k = 0; k < run; ++k) f(from[k * stride]);
              });
            });
          });
        });
      });
    });
  }

  // `value` as the gradient of all logits of a block.
  void fill(const Buffer& buffer, double value) const {
    on_gradients(buffer, [&](auto* out) {
      std::fill_n(out, buffer.block.size, rounded<std::remove_pointer_t<decltype(out)>>(value));
    });
  }

 protected:
  const Ends& ends() const { return ends_; }
  const Cells& cells() const { return cells_; }

  // Writes what buffer.value has for the scores of a block.
  void write(Buffer& buffer) const {
    // Gradients of this size do not fit a core's own cache: written past it, they leave it to the tables.
    constexpr int64_t kStreamBytes = int64_t{1} << 21;
    const int64_t size = buffer.block.size;
    on_gradients(buffer, [&]<typename T>(T* out) {
      if constexpr (std::is_same_v<T, float>) {
        const bool stream = this->input.n * int64_t{sizeof(float)} >= kStreamBytes &&
                            reinterpret_cast<uintptr_t>(out) % 64 == 0;
        loops().write_values(buffer.selected, buffer.value, size, stream, out);
      } else if constexpr (sizeof(T) == 2) {
        loops().write_values(buffer.selected, buffer.value, size, false, buffer.scores);
        from_floats(buffer.scores, size, out);
      }
    });
  }

 private:
  // f(the gradients of a block)
  template <typename F>
  void on_gradients(const Buffer& buffer, const F& f) const {
    with_dtype(input.logits.dtype, [&](auto* type) {
      f(static_cast<decltype(type)>(buffer.block.map.gradient) + buffer.block.begin);
    });
  }

  const float* without_ignored(const float* scores, Buffer* buffer) const {
    const auto& [map, begin, size] = buffer->block;
    Mark marks[kBlockLogits];
    read_marks(input.labels, map.begin + begin, size, marks);
    for (int64_t k = 0; k < size; ++k)
      buffer->scores[k] = marks[k] == Mark::kIgnored ? -std::numeric_limits<float>::infinity() : scores[k];
    return buffer->scores;
  }

  void select(const float* scores, int64_t size, Buffer* buffer) const {
    Selected& selected = buffer->selected;
    // The last block's kind is likely to be this one's; results are the same either way.
    selected.in_place = selected.matter > kBlockLogits / 2;
    const Range range{cells_.below, ends_.lowest(), ends_.highest()};
    buffer->nan += loops().select(scores, size, range, &selected);
  }

  const Narrow addends_;
  const Ends ends_;
  const Cells cells_;
  const MemoryBlocks blocks_;
};

}  // namespace alrp::cpu

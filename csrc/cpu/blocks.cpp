#include "blocks.h"

#include <algorithm>

#include "array.h"

namespace alrp::cpu {
namespace {

void read_flat_marks(const Labels& labels, int64_t begin, int64_t size, Mark* marks) {
  for (int64_t k = 0; k < size; ++k) marks[k] = flat_mark(labels, label_bits(labels, begin + k));
}

void read_row_marks(const Labels& labels, int64_t begin, int64_t size, Mark* marks) {
  const int64_t end = begin + size;
  for (int64_t row = begin / labels.classes; row * labels.classes < end; ++row) {
    const int64_t start = row * labels.classes;
    const int64_t column = row_class(labels, label_bits(labels, row));
    std::fill(marks + std::max(start, begin) - begin, marks + std::min(start + labels.classes, end) - begin,
              row_mark(column, -4));  // of a column that holds no positive
    if (column >= 0 && start + column >= begin && start + column < end)
      marks[start + column - begin] = Mark::kPositive;
  }
}

}  // namespace

void read_marks(const Labels& labels, int64_t begin, int64_t size, Mark* marks) {
  if (labels.classes)
    read_row_marks(labels, begin, size, marks);
  else
    read_flat_marks(labels, begin, size, marks);
}

void read_block(const Input& input, int64_t b, Block* block) {
  block->begin = b * kBlock;
  block->size = std::min(kBlock, input.n - block->begin);
  read_marks(input.labels, block->begin, block->size, block->marks);
  with_dtype(input.logits.dtype, [&](auto* type) {
    const auto* scores = static_cast<decltype(type)>(input.logits.data) + block->begin;
    int64_t m = 0;
    bool nan = false;
    for (int64_t k = 0; k < block->size; ++k) {  // without branches: the count advances or it does not
      const bool negative = block->marks[k] == Mark::kNegative;
      const double score = widen(scores[k]);
      block->negatives[m] = score;
      block->columns[m] = static_cast<int16_t>(k);
      m += negative;
      nan |= negative && score != score;
    }
    block->negative_count = m;
    block->nan = nan;
  });
}

}  // namespace alrp::cpu

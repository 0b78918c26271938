#include "blocks.h"

#include <algorithm>

#include "array.h"
#include "halves.h"
#include "loops.h"
#include "maps.h"

namespace alrp::cpu {
namespace {

void read_row_marks(const Labels& labels, int64_t begin, int64_t size, Mark* marks) {
  std::fill(marks, marks + size, Mark::kNegative);  // as most rows are
  const int64_t end = begin + size;
  int64_t start = begin / labels.classes * labels.classes;
  for (int64_t row = begin / labels.classes; start < end; ++row, start += labels.classes) {
    const int64_t column = row_class(labels, label_bits(labels, row));
    if (column == kBackground) continue;
    if (column >= 0) {
      if (start + column >= begin && start + column < end) marks[start + column - begin] = Mark::kPositive;
    } else {
      std::fill(marks + std::max(start, begin) - begin, marks + std::min(start + labels.classes, end) - begin,
                row_mark(column, 0));
    }
  }
}

}  // namespace

void read_marks(const Labels& labels, int64_t begin, int64_t size, Mark* marks) {
  if (labels.classes)
    read_row_marks(labels, begin, size, marks);
  else
    loops().flat_marks(labels, begin, size, marks);
}

void read_block(const Input& input, int64_t b, Block* block) {
  block->begin = b * kBlockLogits;
  block->size = std::min(kBlockLogits, input.n - block->begin);
  read_marks(input.labels, block->begin, block->size, block->marks);
  with_dtype(input.logits.dtype, [&](auto* type) {
    std::remove_pointer_t<decltype(type)> own[kBlockLogits];
    float floats[kBlockLogits];
    const auto* scores = without_halves(read_run(input, block->begin, block->size, own), block->size, floats);
    int64_t m = 0;
    bool nan = false;
    for (int64_t k = 0; k < block->size; ++k) {  // without branches: the count advances or it does not
      const bool negative = block->marks[k] == Mark::kNegative;
      const double score = scores[k];
      block->negatives[m] = score;
      block->columns[m] = static_cast<int16_t>(k);
      m += negative;
      nan |= negative && score != score;
    }
    block->negative_count = m;
    block->nan |= nan;
  });
}

}  // namespace alrp::cpu

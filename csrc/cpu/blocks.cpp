#include "blocks.h"

#include <algorithm>

#include "array.h"
#include "clones.h"
#include "halves.h"
#include "maps.h"

namespace alrp::cpu {
namespace {

// flat_mark of a run of labels of one width, in a form that compilers turn into vector instructions.
template <typename Bits>
ALRP_LOOP void flat_marks(const Labels& labels, int64_t begin, int64_t size, Mark* marks) {
  const Bits* bits = static_cast<const Bits*>(labels.data) + begin;
  const auto least = static_cast<Bits>(labels.least), span = static_cast<Bits>(labels.span),
             infinity = static_cast<Bits>(labels.infinity);
  const auto sign = static_cast<Bits>(Bits{1} << (8 * sizeof(Bits) - 1));
  const auto is_signed = static_cast<Bits>(labels.is_signed ? sign : 0);
  for (int64_t k = 0; k < size; ++k) {
    const Bits b = bits[k], magnitude = b & static_cast<Bits>(~sign);
    const bool ignored = (b & is_signed) != 0 && (infinity == 0 || magnitude <= infinity);
    const bool positive = static_cast<Bits>(b - least) <= span;
    const bool minus_zero = infinity != 0 && b == sign;
    const int mark = ignored ? static_cast<int>(Mark::kIgnored) : static_cast<int>(Mark::kInvalid);
    marks[k] = static_cast<Mark>(b == 0 || minus_zero ? 0 : (positive ? 1 : mark));
  }
}

ALRP_LOOP void read_flat_marks(const Labels& labels, int64_t begin, int64_t size, Mark* marks) {
  switch (labels.bytes) {
    case 1:
      return flat_marks<uint8_t>(labels, begin, size, marks);
    case 2:
      return flat_marks<uint16_t>(labels, begin, size, marks);
    case 4:
      return flat_marks<uint32_t>(labels, begin, size, marks);
    default:
      return flat_marks<uint64_t>(labels, begin, size, marks);
  }
}

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
    by_level<read_flat_marks>(labels, begin, size, marks);
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

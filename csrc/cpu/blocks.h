// Blocks of logits on the CPU: their scores in double and their marks, small enough for the first-level
// cache.
#pragma once

#include "../ranking.h"

namespace alrp::cpu {

constexpr int64_t kBlockLogits = 1024;

// Blocks that a thread takes at once: worth a thread of their own.
constexpr int64_t kPartBlocks = 16;

struct Block {
  int64_t begin;  // first logit
  int64_t size;   // logits
  Mark marks[kBlockLogits];
  double negatives[kBlockLogits];  // scores of the negatives, dense
  int16_t columns[kBlockLogits];   // their places in the block
  int64_t negative_count;
  bool nan = false;  // a negative of any block that it has held
};

inline int64_t block_count(int64_t n) { return (n + kBlockLogits - 1) / kBlockLogits; }

// Marks of logits [begin, begin + size).
void read_marks(const Labels& labels, int64_t begin, int64_t size, Mark* marks);

// The b-th block by flat index, with its negatives.
void read_block(const Input& input, int64_t b, Block* block);

}  // namespace alrp::cpu

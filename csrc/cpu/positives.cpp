#include "positives.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include "../keys.h"
#include "array.h"
#include "blocks.h"
#include "parallel.h"
#include "sort.h"

namespace alrp::cpu {
namespace {

constexpr int64_t kChunkLabels = 1 << 16;  // worth a thread

// What was found in one chunk of labels.
struct Chunk {
  std::vector<int64_t> index;  // flat indices of its positives, ascending
  std::vector<double> score;   // theirs, where asked for
  bool invalid = false;
};

void find_rows(const Labels& labels, int64_t begin, int64_t end, Chunk* chunk) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t column = row_class(labels, label_bits(labels, row));
    if (column >= 0) chunk->index.push_back(row * labels.classes + column);
    chunk->invalid |= column == kInvalidRow;
  }
}

void visit(const Labels& labels, int64_t i, Chunk* chunk) {
  const Mark mark = flat_mark(labels, label_bits(labels, i));
  if (mark == Mark::kPositive) chunk->index.push_back(i);
  chunk->invalid |= mark == Mark::kInvalid;
}

void find_flat(const Labels& labels, int64_t begin, int64_t end, Chunk* chunk) {
  // Most words of labels hold nothing but negatives, whose label is 0, and most groups of words.
  constexpr int64_t kWords = 8;
  constexpr int64_t kAheadBytes = 2048;  // hardware prefetches within a page only
  const int64_t in_word = static_cast<int64_t>(sizeof(uint64_t)) / labels.bytes;
  const auto* bytes = static_cast<const char*>(labels.data);
  int64_t start = begin;
  for (; start + kWords * in_word <= end; start += kWords * in_word) {
    __builtin_prefetch(bytes + start * labels.bytes + kAheadBytes);
    uint64_t words[kWords], any = 0;
    std::memcpy(words, bytes + start * labels.bytes, sizeof(words));
    for (const uint64_t word : words) any |= word;
    if (!any) continue;
    unsigned which = 0;  // a branch for each word would be mispredicted
    for (int w = 0; w < kWords; ++w) which |= static_cast<unsigned>(words[w] != 0) << w;
    for (; which; which &= which - 1) {
      const int64_t first = start + std::countr_zero(which) * in_word;
      for (int64_t i = first; i < first + in_word; ++i) visit(labels, i, chunk);
    }
  }
  for (; start < end; ++start) visit(labels, start, chunk);
}

// `scores`: whether the positives' are wanted. Read here, the loads are spread over the threads.
std::vector<Chunk> find(const Input& input, bool scores) {
  const Labels& labels = input.labels;
  const int64_t count = label_count(labels, input.n);
  std::vector<Chunk> chunks((count + kChunkLabels - 1) / kChunkLabels);
  on_each_thread(static_cast<int64_t>(chunks.size()), 1, [&](const auto& take) {
    take([&](int64_t c) {
      Chunk& chunk = chunks[c];
      (labels.classes ? find_rows : find_flat)(labels, c * kChunkLabels,
                                               std::min(count, (c + 1) * kChunkLabels), &chunk);
      if (!scores) return;
      chunk.score.reserve(chunk.index.size());
      for (const int64_t i : chunk.index) chunk.score.push_back(load(input.logits, i));
    });
  });
  return chunks;
}

Status summary(const std::vector<Chunk>& chunks) {
  Status status{0, 0, 0};
  for (const Chunk& chunk : chunks) {
    status.found += static_cast<int64_t>(chunk.index.size());
    status.invalid |= chunk.invalid;
  }
  return status;
}

}  // namespace

void count_positives(const Input& input, Status* status) { *status = summary(find(input, false)); }

void find_positives(const Input& input, const Tables& tables, int64_t* place, Status* status) {
  const std::vector<Chunk> chunks = find(input, true);
  *status = summary(chunks);
  // At most p; a wrong p is reported by status.
  const auto found = std::min(status->found, input.p);
  std::vector<int64_t> flat;
  std::vector<Keyed> sorted(found);
  flat.reserve(found);
  for (const Chunk& chunk : chunks) {
    for (size_t k = 0; k < chunk.index.size() && static_cast<int64_t>(flat.size()) < found; ++k) {
      double score = chunk.score[k];
      if (score != score) {
        status->nan = 1;
        score = 0;  // any number: every result is NaN
      }
      const auto place = static_cast<int64_t>(flat.size());
      sorted[found - 1 - place] = {key_of(score), place};  // ties descend by flat index
      flat.push_back(chunk.index[k]);
    }
  }
  sort(input.logits.dtype == Dtype::kFloat64 ? 0 : kFloatRoom, &sorted);
  for (int64_t r = 0; r < found; ++r) {
    place[r] = sorted[r].place;
    tables.index[r] = flat[sorted[r].place];
    tables.score[r] = score_of(sorted[r].key);
  }
  for (int64_t r = found; r < input.p; ++r) {
    place[r] = r;
    tables.index[r] = -1;
    tables.score[r] = std::numeric_limits<double>::infinity();  // scores have to ascend
  }
}

}  // namespace alrp::cpu

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

// Labels read by one task: enough to be worth a thread.
constexpr int64_t kLabelChunk = 1 << 16;

// What one chunk of labels holds.
struct Found {
  std::vector<int64_t> index;  // flat indices of its positives, ascending
  std::vector<double> score;   // theirs, where asked for
  bool invalid = false;
};

void find_rows(const Labels& labels, int64_t begin, int64_t end, Found* found) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t column = row_class(labels, label_bits(labels, row));
    if (column >= 0) found->index.push_back(row * labels.classes + column);
    found->invalid |= column == kInvalidRow;
  }
}

void visit(const Labels& labels, int64_t i, Found* found) {
  const Mark mark = flat_mark(labels, label_bits(labels, i));
  if (mark == Mark::kPositive) found->index.push_back(i);
  found->invalid |= mark == Mark::kInvalid;
}

// The labels of a word of memory, the first of which is label `begin`: those that are not 0.
void visit_word(const Labels& labels, uint64_t word, int64_t begin, Found* found) {
  const int bits = 8 * labels.bytes;
  const uint64_t ones = ~uint64_t{0} >> (64 - bits);
  while (word) {
    if constexpr (std::endian::native == std::endian::little) {
      const int k = std::countr_zero(word) / bits;
      visit(labels, begin + k, found);
      word &= ~(ones << k * bits);
    } else {
      const int k = std::countl_zero(word) / bits;
      visit(labels, begin + k, found);
      word &= ~(ones << (64 - bits) >> k * bits);
    }
  }
}

void find_flat(const Labels& labels, int64_t begin, int64_t end, Found* found) {
  // Most words of labels hold nothing but negatives, and most groups of words.
  constexpr int64_t kWords = 8;
  constexpr int64_t kAheadBytes = 2048;  // the hardware looks no further ahead than a page
  const int64_t in_word = static_cast<int64_t>(sizeof(uint64_t)) / labels.bytes;
  const auto* bytes = static_cast<const char*>(labels.data);
  int64_t start = begin;
  for (; start + kWords * in_word <= end; start += kWords * in_word) {
    __builtin_prefetch(bytes + start * labels.bytes + kAheadBytes);
    uint64_t words[kWords], any = 0;
    std::memcpy(words, bytes + start * labels.bytes, sizeof(words));
    for (const uint64_t word : words) any |= word;
    if (!any) continue;
    unsigned which = 0;  // not a branch for each word, which cannot be foretold
    for (int w = 0; w < kWords; ++w) which |= static_cast<unsigned>(words[w] != 0) << w;
    for (; which; which &= which - 1) {
      const int w = std::countr_zero(which);
      visit_word(labels, words[w], start + w * in_word, found);
    }
  }
  for (; start < end; ++start) visit(labels, start, found);
}

// `scores`: whether the positives' are wanted. Read here, each thread waits for its own.
std::vector<Found> find(const Input& input, bool scores) {
  const Labels& labels = input.labels;
  const int64_t count = label_count(labels, input.n);
  std::vector<Found> chunks((count + kLabelChunk - 1) / kLabelChunk);
  share_out(static_cast<int64_t>(chunks.size()), 1, [&](const auto& take) {
    take([&](int64_t c, int64_t) {
      Found& found = chunks[c];
      (labels.classes ? find_rows : find_flat)(labels, c * kLabelChunk,
                                               std::min(count, (c + 1) * kLabelChunk), &found);
      if (!scores) return;
      found.score.reserve(found.index.size());
      for (const int64_t i : found.index) found.score.push_back(load(input.logits, i));
    });
  });
  return chunks;
}

Status summary(const std::vector<Found>& chunks) {
  Status status{0, 0, 0};
  for (const Found& found : chunks) {
    status.found += static_cast<int64_t>(found.index.size());
    status.invalid |= found.invalid;
  }
  return status;
}

}  // namespace

void count_positives(const Input& input, Status* status) { *status = summary(find(input, false)); }

void find_positives(const Input& input, const Tables& tables, int64_t* place, Status* status) {
  const std::vector<Found> chunks = find(input, true);
  *status = summary(chunks);
  // As many as there is room for; a wrong p is reported by status.
  const auto found = std::min(status->found, input.p);
  std::vector<int64_t> flat;
  std::vector<Keyed> sorted(found);
  flat.reserve(found);
  for (const Found& chunk : chunks) {
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

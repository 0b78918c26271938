// A walk over labels that passes over what most of them are: negatives.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "../labels.h"
#include "parallel.h"

namespace alrp::cpu {

// f(mark, first logit, logits) for what the labels [begin, end) hold beside negatives, in order.
template <typename F>
void walk_flat(const Labels& labels, int64_t begin, int64_t end, const F& f) {
  const auto visit = [&](int64_t i) {
    const Mark mark = flat_mark(labels, label_bits(labels, i));
    if (mark != Mark::kNegative) f(mark, i, int64_t{1});
  };
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
      for (int64_t i = first; i < first + in_word; ++i) visit(i);
    }
  }
  for (; start < end; ++start) visit(start);
}

template <typename F>
void walk_rows(const Labels& labels, int64_t begin, int64_t end, const F& f) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t column = row_class(labels, label_bits(labels, row)), first = row * labels.classes;
    if (column >= 0)
      f(Mark::kPositive, first + column, int64_t{1});
    else if (column != kBackground)
      f(row_mark(column, 0), first, labels.classes);
  }
}

constexpr int64_t kChunkLabels = 1 << 16;  // worth a thread

inline int64_t chunk_count(const Labels& labels, int64_t n) {
  return (label_count(labels, n) + kChunkLabels - 1) / kChunkLabels;
}

// The labels of chunk c, of n logits in all.
template <typename F>
void walk_chunk(const Labels& labels, int64_t n, int64_t c, const F& f) {
  const int64_t begin = c * kChunkLabels, end = std::min(label_count(labels, n), begin + kChunkLabels);
  if (labels.classes)
    walk_rows(labels, begin, end, f);
  else
    walk_flat(labels, begin, end, f);
}

}  // namespace alrp::cpu

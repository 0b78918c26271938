// Labels as they lie in memory, read without conversion: every integer, bool and floating dtype is recognised
// by its width and a few bit patterns, so that no kernel has to know dtypes.
#pragma once

#include <cstdint>

#include "step.h"

namespace alrp {

struct Labels {
  const void* data;
  int32_t bytes;       // of one label: 1, 2, 4 or 8
  int32_t is_signed;   // the top bit is a sign (all but bool and the unsigned integers)
  uint64_t least;      // the bits of the least label of a positive: of 1, or of the smallest number above 0
  uint64_t span;       // how many bit patterns from there on are positives too: 0, or all of finite numbers
  uint64_t infinity;   // the bits of +infinity for floating labels, else 0
  int64_t classes;     // 0: one label per logit; C: one class index per row of C logits
  int64_t background;  // the class index that stands for background (classes > 0)
};

enum class Mark : int8_t { kNegative = 0, kPositive = 1, kIgnored = 2, kInvalid = 3 };

ALRP_HD uint64_t label_bits(const Labels& labels, int64_t i) {
  switch (labels.bytes) {
    case 1:
      return static_cast<const uint8_t*>(labels.data)[i];
    case 2:
      return static_cast<const uint16_t*>(labels.data)[i];
    case 4:
      return static_cast<const uint32_t*>(labels.data)[i];
    default:
      return static_cast<const uint64_t*>(labels.data)[i];
  }
}

// Whether a positive's label is any finite number above 0.
ALRP_HD bool is_continuous(const Labels& labels) { return labels.span != 0; }

// One label of a logit: 1 (or any finite number above 0) positive, 0 negative, below 0 ignored, anything else
// invalid.
ALRP_HD Mark flat_mark(const Labels& labels, uint64_t bits) {
  if (bits == 0) return Mark::kNegative;
  if (bits - labels.least <= labels.span) return Mark::kPositive;
  const uint64_t sign = uint64_t{1} << (8 * labels.bytes - 1);
  if (!labels.is_signed || !(bits & sign)) return Mark::kInvalid;
  if (labels.infinity == 0) return Mark::kIgnored;
  const uint64_t magnitude = bits ^ sign;
  if (magnitude == 0) return Mark::kNegative;                             // -0.0
  return magnitude <= labels.infinity ? Mark::kIgnored : Mark::kInvalid;  // above infinity: NaN
}

// The class of a row: its column where the row holds a positive; kBackground, kIgnoredRow or kInvalidRow
// where it does not.
constexpr int64_t kBackground = -1, kIgnoredRow = -2, kInvalidRow = -3;

ALRP_HD int64_t row_class(const Labels& labels, uint64_t bits) {
  const int unused = 64 - 8 * labels.bytes;
  if (labels.is_signed && static_cast<int64_t>(bits << unused) < 0) return kIgnoredRow;
  if (bits == static_cast<uint64_t>(labels.background)) return kBackground;
  return bits < static_cast<uint64_t>(labels.classes) ? static_cast<int64_t>(bits) : kInvalidRow;
}

ALRP_HD Mark row_mark(int64_t row, int64_t column) {
  if (row == column) return Mark::kPositive;
  return row == kIgnoredRow ? Mark::kIgnored : (row == kInvalidRow ? Mark::kInvalid : Mark::kNegative);
}

// The labels from the i-th logit on, where each has its own.
ALRP_HD Labels labels_from(const Labels& labels, int64_t i) {
  Labels rest = labels;
  rest.data = static_cast<const char*>(labels.data) + i * labels.bytes;
  return rest;
}

// Number of labels of n logits.
ALRP_HD int64_t label_count(const Labels& labels, int64_t n) {
  return labels.classes ? n / labels.classes : n;
}

// The mark of logit i.
ALRP_HD Mark mark_of(const Labels& labels, int64_t i) {
  if (labels.classes == 0) return flat_mark(labels, label_bits(labels, i));
  const int64_t row = i / labels.classes;
  return row_mark(row_class(labels, label_bits(labels, row)), i - row * labels.classes);
}

}  // namespace alrp

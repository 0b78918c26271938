// Doubles as integers to sort by; for the host and for devices.
#pragma once

#include <cstdint>
#include <cstring>

#include "step.h"

namespace alrp {

// Unsigned integers in the order of doubles; -0.0 and 0.0 have one key.
ALRP_HD uint64_t key_of(double score) {
  const double value = score == 0 ? 0.0 : score;
  uint64_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}

ALRP_HD double score_of(uint64_t key) {
  const uint64_t bits = key >> 63 ? key ^ uint64_t{1} << 63 : ~key;
  double score;
  memcpy(&score, &bits, sizeof(score));
  return score;
}

// The low bits of a double that was a float are 0. In its key they are alike: 0 in that of what is positive, 1 in that of
// what is negative.
constexpr int kFloatRoom = 29;

}  // namespace alrp

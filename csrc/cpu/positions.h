// Scores as integer positions, the coordinates in which the sorted algorithm compares and sums exactly.
//
// A position is a fixed-point number with 2 delta = 2 half() units, so a step is 0 up to KL = x_i - half, 1
// from KR = x_i + half, and linear between. Integer sums do not depend on their order: results are bitwise
// the same for every number of threads and every permutation of the negatives. Two forms:
//   Narrow  int64, one linear map for all scores: 2 delta is about 2^33 units. For scores of at most 32 bits
//   whose
//           positives span at most 2^15 times 2 delta.
//   Wide    __int128, 2 delta is at least 2^62 units, for everything else. Positives are grouped in clusters
//   whose steps
//           do not touch; distances between clusters do not matter and are cut short, so that any spread of
//           scores, infinities and delta = 0 fit.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace alrp::cpu {

__extension__ typedef __int128 int128;
__extension__ typedef unsigned __int128 uint128;

class Narrow {
 public:
  using Int = int64_t;
  using Sum = uint64_t;  // wraps around: only differences below 2^63 are read

  // Whether the p > 0 ascending scores of positives fit, for n logits and this delta.
  static bool fits(const double* score, int64_t p, int64_t n, double delta);

  Narrow(const double* score, int64_t p, int64_t n, double delta);

  Int half() const { return half_; }
  Int of(double score) const { return static_cast<Int>(std::nearbyint(score * scale_ + offset_)); }

  // For vectorised callers: position = round(score * scale + offset). The product is exact, so the sum is
  // rounded once.
  double scale() const { return scale_; }
  double offset() const { return offset_; }

 private:
  double scale_;   // a power of two
  double offset_;  // an integer: the lowest positive lies near 0
  Int half_;
};

class Wide {
 public:
  using Int = int128;
  using Sum = uint128;

  Wide(const double* score, int64_t p, double delta);

  Int half() const { return half_; }
  Int of(double score) const;

 private:
  struct Cluster {
    double from;    // scores from here on belong to this cluster or a later one
    double origin;  // lowest positive
    Int offset;     // its position
    Int width;      // from the lowest to the highest positive
  };

  Int units(double origin, double score) const;

  std::vector<Cluster> clusters_;
  int exponent_;  // units are 2^-exponent_
  Int half_;
};

}  // namespace alrp::cpu

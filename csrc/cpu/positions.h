// The positions of positions.h as the CPU builds them from the ascending scores of the positives.
#pragma once

#include <cstdint>
#include <vector>

#include "../positions.h"

namespace alrp::cpu {

// Wide with the clusters of p > 0 positives.
class WidePositions {
 public:
  using Int = Wide::Int;
  using Sum = Wide::Sum;

  WidePositions(const double* score, int64_t p, double delta);
  WidePositions(const WidePositions&) = delete;

  Int half() const { return wide_.half; }
  Int of(double score) const { return wide_.of(score); }

 private:
  std::vector<Cluster> clusters_;
  Wide wide_;
};

}  // namespace alrp::cpu

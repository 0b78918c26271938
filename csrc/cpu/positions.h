// The positions of positions.h as the CPU builds them from the ascending scores of the positives.
#pragma once

#include <cstdint>
#include <vector>

#include "../positions.h"

namespace alrp::cpu {

// Wide with the clusters of p > 0 positives.
struct WidePositions : Wide {
  WidePositions(const double* score, int64_t p, double delta);
  WidePositions(WidePositions&&) = default;

  const Cluster& cluster_of(double score) const;

 private:
  std::vector<Cluster> owned_;  // which stay where they are when this moves
};

}  // namespace alrp::cpu

#include "positions.h"

#include <algorithm>
#include <iterator>
#include <limits>

namespace alrp::cpu {

WidePositions::WidePositions(const double* score, int64_t p, double delta) : Wide(make(delta)) {
  int128 offset = 0;
  for (int64_t i = 0; i < p;) {
    int64_t last = i;
    while (last + 1 < p && joins(score[last], score[last + 1], delta)) ++last;
    const double from =
        i > 0 ? from_between(score[i - 1], score[i], delta) : -std::numeric_limits<double>::infinity();
    const int128 width = units(score[i], score[last]);
    owned_.push_back({from, score[i], offset, width});
    offset += room(width);
    i = last + 1;
  }
  clusters = owned_.data();
  count = static_cast<int64_t>(owned_.size());
}

const Cluster& WidePositions::cluster_of(double score) const {
  return *std::prev(std::upper_bound(owned_.begin() + 1, owned_.end(), score,
                                     [](double s, const Cluster& cluster) { return s < cluster.from; }));
}

}  // namespace alrp::cpu

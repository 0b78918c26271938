#include "positions.h"

#include <limits>

namespace alrp::cpu {

WidePositions::WidePositions(const double* score, int64_t p, double delta) : wide_(Wide::make(delta)) {
  int128 offset = 0;
  for (int64_t i = 0; i < p;) {
    int64_t last = i;
    while (last + 1 < p && Wide::joins(score[last], score[last + 1], delta)) ++last;
    const double from =
        i > 0 ? Wide::from_between(score[i - 1], score[i], delta) : -std::numeric_limits<double>::infinity();
    const int128 width = wide_.units(score[i], score[last]);
    clusters_.push_back({from, score[i], offset, width});
    offset += wide_.room(width);
    i = last + 1;
  }
  wide_.clusters = clusters_.data();
  wide_.count = static_cast<int64_t>(clusters_.size());
}

}  // namespace alrp::cpu

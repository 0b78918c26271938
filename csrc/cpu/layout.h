// The positives of a call as positions and knots.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "../ranking.h"
#include "knots.h"

namespace alrp::cpu {

template <typename Position>
struct Layout {
  using Int = typename Position::Int;
  using Sum = typename Position::Sum;

  // Of p > 0 ascending scores. `input` stays alive.
  Layout(const Input& input, const double* score, Position own)
      : input(input), position(std::move(own)), at(positions(score)), knots(at, position.half) {}
  Layout(const Layout&) = delete;

  const Input& input;
  const Position position;
  const std::vector<Int> at;  // of each positive
  const Knots<Int> knots;

 private:
  std::vector<Int> positions(const double* score) const {
    std::vector<Int> positions(input.p);
    std::transform(score, score + input.p, positions.begin(), [&](double s) { return position.of(s); });
    return positions;
  }
};

}  // namespace alrp::cpu

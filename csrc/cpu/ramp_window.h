// Sums of weighted ramps over neighbours in the order of scores, by additions of like signs alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>

namespace alrp::cpu {

// add(query, sum over the sources of ramp(source, query) weight(source)) for each query, in O(n + m).
//
// ramp(source, query) goes from 0 to 1 over the sources, linearly in their scores with the slope `scale` between, and
// does not rise over the queries. So the sources with a ramp between 0 and 1 are a window [begin, end) that only moves
// forward. Its sums are kept in two parts, from which nothing is ever subtracted: of [k, middle) for every k, and of
// [middle, end).
template <typename Value, typename Sources, typename Queries, typename Ramp, typename Weight, typename Add>
void sum_ramps(Sources source, int64_t n, Queries query, int64_t m, double scale, const Ramp& ramp,
               const Weight& weight, const Add& add) {
  const auto distance = [&](int64_t a, int64_t b) {  // between scores; equal infinities are at the same place
    const double from = source[a].score, to = source[b].score;
    return from == to ? 0.0 : std::abs(to - from);
  };
  const std::unique_ptr<Value[]> reached(
      new Value[n + 1]);  // [k]: of the sources from k on, as if all ramps were 1
  reached[n] = Value{};
  for (int64_t k = n; k-- > 0;) reached[k] = reached[k + 1] + weight(source[k]);
  const std::unique_ptr<Value[]> sum(new Value[n]),
      moment(new Value[n]);       // [k]: of [k, middle), distances from k
  Value later{}, later_moment{};  // of [middle, end), distances from middle
  int64_t begin = 0, middle = 0, end = 0;
  for (int64_t q = 0; q < m; ++q) {
    while (begin < n && ramp(source[begin].score, query[q].score) == 0) ++begin;
    for (; end < n && ramp(source[end].score, query[q].score) < 1; ++end) {
      const Value w = weight(source[end]);
      later += w;
      later_moment += distance(middle, end) * w;
    }
    if (begin >= middle) {
      middle = end;
      later = later_moment = Value{};
      for (int64_t k = end; k-- > begin;) {
        const bool is_last = k + 1 == end;
        moment[k] = is_last ? Value{} : moment[k + 1] + distance(k, k + 1) * sum[k + 1];
        sum[k] = is_last ? weight(source[k]) : sum[k + 1] + weight(source[k]);
      }
    }
    Value result = reached[end];
    if (begin < end) {
      Value moments = moment[begin] + later_moment;
      if (middle < end) moments += distance(begin, middle) * later;
      result += ramp(source[begin].score, query[q].score) * (sum[begin] + later) + scale * moments;
    }
    add(query[q], result);
  }
}

}  // namespace alrp::cpu

// Counting by bins: how many negatives lie in each segment, the sum of their positions, and N_FP from both.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <vector>

#include "../positions.h"
#include "../ranking.h"
#include "blocks.h"
#include "knots.h"
#include "parallel.h"

namespace alrp::cpu {

// The bins of all negatives, and status.nan. The first thread runs `meanwhile`, while the others count.
template <typename Layout>
auto fill_bins(const Layout& layout, const Tables& tables, Status* status,
               const std::function<void()>& meanwhile) {
  using Bins = std::vector<Bin<typename Layout::Sum>>;
  const auto count = layout.counter();
  const bool ignored = status->ignored != 0;
  Bins total(layout.knots.segments());
  std::mutex mutex;
  std::atomic_flag begun;  // `meanwhile`
  const auto run_meanwhile = [&] {
    if (!begun.test_and_set(std::memory_order_relaxed)) meanwhile();
  };
  on_each_thread(layout.blocks(), kPartBlocks, [&](const auto& take) {
    run_meanwhile();
    typename Layout::Buffer buffer;
    Bins bins(total.size());
    take([&](int64_t b) {
      layout.read(b, ignored, &buffer);
      count(buffer, bins.data());
    });
    const std::lock_guard lock(mutex);  // integers: the order of threads does not matter
    status->nan += buffer.nan;
    for (size_t m = 0; m < bins.size(); ++m) total[m] = total[m] + bins[m];
  });
  run_meanwhile();  // there may be no blocks
  layout.take_out_others(tables, count, status, &total);
  return total;
}

// n_fp[i] = sum over the binned x of clamp((x - KL_i) / (KR_i - KL_i), 0, 1), exact but for the division.
template <typename Int, typename Sum>
void count_from_bins(const Knots<Int>& knots, const std::vector<Bin<Sum>>& bins, double* n_fp) {
  std::vector<Bin<Sum>> below(bins.size() + 1);  // below[m]: of the segments before m
  for (size_t m = 0; m < bins.size(); ++m) below[m + 1] = below[m] + bins[m];
  for (size_t i = 0; i < knots.left.size(); ++i)
    n_fp[i] = count_of(below[knots.left[i] + 1], below[knots.right[i] + 1], below.back().count,
                       knots.at[knots.left[i]], knots.half);
}

}  // namespace alrp::cpu

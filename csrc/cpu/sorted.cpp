#include "sorted.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "bins.h"
#include "jump_layout.h"
#include "label_walk.h"
#include "maps.h"
#include "narrow_layout.h"
#include "parallel.h"
#include "ramp_sum.h"
#include "terms.h"
#include "tiled.h"
#include "wide_layout.h"

namespace alrp::cpu {
namespace {

bool finite(const double* values, int64_t size) {
  return std::all_of(values, values + size, [](double value) { return std::isfinite(value); });
}

template <typename Layout>
class SortedFormOf final : public SortedForm {
 public:
  SortedFormOf(const Input& input, const Tables& tables)
      : input_(input), tables_(tables), layout_(input, tables.score) {}

  void count(const Spec& spec, const Sums& sums, Status* status) override {
    // The sums among the positives need no negative: one thread makes them while the others count.
    const Bins bins = fill_bins(layout_, tables_, status, [&] { pair_sums(spec, sums); });
    count_from_bins(layout_.knots, bins, sums.n_fp);
  }

  void count_part(int64_t* part, Status* status) override {
    const int64_t size = part_size(input_);
    const Bins bins = fill_bins(layout_, tables_, status, [] {});
    std::fill(part, part + size, 0);  // equal knots are one: there may be fewer than 2p + 1 bins
    for (size_t m = 0; m < bins.size(); ++m) to_words(bins[m], part + kBinWords * m);
    part[size - 1] = status->nan;
  }

  void count_from_parts(const Spec& spec, const int64_t* sum, const Sums& sums, Status* status) override {
    Bins bins(layout_.knots.segments());
    for (size_t m = 0; m < bins.size(); ++m) bins[m] = from_words<Sum>(sum + kBinWords * m);
    status->nan |= sum[part_size(input_) - 1] != 0;
    count_from_bins(layout_.knots, bins, sums.n_fp);
    pair_sums(spec, sums);
  }

  void error_gradient(const Sums& sums) override {
    const std::vector<double> weight = rank_weights(sums, input_.p);
    std::vector<double> below(input_.p);
    sum_below(weight.data(), below.data());
    for (int64_t r = 0; r < input_.p; ++r)
      tables_.error_gradient[sums.place[r]] = below[r] + weight[r] + *tables_.poison;
  }

  void spread(const Status& status, const Gradients& gradients) override {
    const double scale = load_scalar(gradients.grad_cls, gradients.incoming);
    if (!finite(tables_.share, input_.p) || !std::isfinite(scale))
      return tiled::spread(input_, tables_, gradients);
    const RampSum ramps(layout_.knots, tables_.share);
    const auto write = layout_.writer(ramps, scale);
    const double rest = *tables_.poison * scale;  // of what lies below all knots: 0, or NaN as of all others
    on_each_thread(layout_.blocks(), kPartBlocks, [&](const auto& take) {
      typename Layout::Buffer buffer;
      take([&](int64_t b) {
        layout_.read(b, status.ignored != 0, &buffer);
        if (rest == 0)
          write(buffer);
        else
          layout_.fill(buffer, rest);
      });
      loops().fence();
    });
    if (!status.ignored || (rest == 0 && all_have_labels(input_.logits, input_.labels))) return;
    on_each_thread(chunk_count(input_.labels, input_.n), 1, [&](const auto& take) {
      take([&](int64_t c) {
        walk_chunk(input_.labels, input_.n, c, [&](Mark mark, int64_t first, int64_t logits) {
          if (mark == Mark::kIgnored) fill_gradients(input_, first, logits, 0);
        });
      });
    });
  }

  void pair_product(const double* weights, bool transposed, double* out) override {
    if (!finite(weights, input_.p))
      tiled::pair_product(input_, tables_.score, weights, transposed, out);
    else if (transposed)
      sum_below(weights, out);
    else
      sum_above(weights, out);
  }

 private:
  using Int = typename Layout::Int;
  using Sum = typename Layout::Sum;
  using Bins = std::vector<Bin<Sum>>;

  // rank+ and S.
  void pair_sums(const Spec& spec, const Sums& sums) {
    const int64_t p = input_.p;
    if (!sums.s) {
      sum_above(std::vector<double>(p, 1.0).data(), sums.rank_pos);
    } else {
      using Two __attribute__((vector_size(2 * sizeof(double)))) = double;  // of 1 and of the errors
      std::vector<Two> weight(p), sum(p);
      bool finite = true;
      for (int64_t r = 0; r < p; ++r) {
        weight[r] = Two{1, load(spec.loc_errors, sums.place[r])};
        finite &= std::isfinite(weight[r][1]);
      }
      if (!finite) return tiled::pair_sums(input_, spec, tables_.score, sums);
      sum_above(weight.data(), sum.data());
      for (int64_t r = 0; r < p; ++r) {
        sums.rank_pos[r] = sum[r][0];
        sums.s[r] = sum[r][1];
      }
    }
    for (int64_t r = 0; r < p; ++r) sums.rank_pos[r] += 1;
  }

  // out[i] = sum over k != i of weight[k] H(s_k - s_i): ramps that fall with s_i.
  template <typename Value>
  void sum_above(const Value* weight, Value* out) {
    const Knots<Int>& knots = layout_.knots;
    const RampSum<Int, Value, true> ramps(knots, weight);
    const std::vector<int32_t>& segments = this->segments();
    for (int64_t r = 0; r < input_.p; ++r) {
      const int32_t m = segments[r], below = m - (m > 0 && knots.at[m - 1] == layout_.at[r]);
      out[r] = ramps(knots, layout_.at[r], below) - weight[r] * at_tie();  // without k = i
    }
  }

  // out[k] = sum over i != k of weight[i] H(s_k - s_i).
  void sum_below(const double* weight, double* out) {
    const RampSum ramps(layout_.knots, weight);
    const std::vector<int32_t>& segments = this->segments();
    for (int64_t r = 0; r < input_.p; ++r)
      out[r] = ramps(layout_.knots, layout_.at[r], segments[r]) - weight[r] * at_tie();
  }

  // Of the positives. Made when first asked for: count_part does without.
  const std::vector<int32_t>& segments() {
    if (segments_.empty()) segments_ = layout_.knots.segments_of(layout_.at);
    return segments_;
  }

  double at_tie() const { return layout_.position.half ? 0.5 : 1.0; }  // H(0), which k = i has too

  const Input& input_;
  const Tables tables_;
  const Layout layout_;
  std::vector<int32_t> segments_;
};

}  // namespace

std::unique_ptr<SortedForm> SortedForm::make(const Input& input, const Tables& tables) {
  if (NarrowLayout::fits(input, tables.score))
    return std::make_unique<SortedFormOf<NarrowLayout>>(input, tables);
  if (JumpLayout::fits(input, tables.score)) return std::make_unique<SortedFormOf<JumpLayout>>(input, tables);
  return std::make_unique<SortedFormOf<WideLayout>>(input, tables);
}

}  // namespace alrp::cpu

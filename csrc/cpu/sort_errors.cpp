#include <algorithm>
#include <iterator>
#include <vector>

#include "../losses.h"
#include "array.h"
#include "parallel.h"
#include "ramp_window.h"
#include "terms.h"

namespace alrp::cpu {
namespace {

struct Item {
  double score, label, share;
  int64_t r;
};

// A set of positives, all those whose labels lie in a range: items [begin, end), by score. The labels of all
// positives, sorted, have the same ones at the same places.
struct Node {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

constexpr int64_t kFew = 32;  // positives that are summed pair by pair

// Where the labels of a node are cut into lower and higher ones, near their middle; its beginning if all are equal.
int64_t cut(const std::vector<double>& labels, const Node& node) {
  const auto begin = labels.begin() + node.begin, end = labels.begin() + node.end,
             middle = begin + node.size() / 2;
  const auto first = std::lower_bound(begin, end, *middle), last = std::upper_bound(begin, end, *middle);
  return (last == end || (first != begin && middle - first < last - middle) ? first : last) - labels.begin();
}

// Visits the pairs of positives, O(p log p) of them at once: split(low, high) for sets where all labels of one are
// lower than those of the other, alike(node) where all are equal, pairs(node) where they are few. Every pair is in
// one of them; the calls for one depth of the tree, which are disjoint, go to different threads.
template <typename Visitor>
void visit(std::vector<Item> items, const std::vector<double>& labels, const Visitor& visitor) {
  std::vector<Item> parted(items.size());
  std::vector<Node> nodes = {{0, static_cast<int64_t>(items.size())}};
  while (!nodes.empty()) {
    std::vector<Node> halves(2 * nodes.size(), Node{0, 0});
    parallel_for(0, static_cast<int64_t>(nodes.size()), 1, [&](int64_t from, int64_t to) {
      for (int64_t k = from; k < to; ++k) {
        const Node node = nodes[k];
        const auto at = [&](std::vector<Item>& of, int64_t i) { return of.data() + i; };
        if (node.size() <= kFew) {
          visitor.pairs(at(items, node.begin), node.size());
          continue;
        }
        const int64_t middle = cut(labels, node);
        if (middle == node.begin) {
          visitor.alike(at(items, node.begin), node.size());
          continue;
        }
        const double least = labels[middle];  // of the higher ones
        std::partition_copy(at(items, node.begin), at(items, node.end), at(parted, node.begin),
                            at(parted, middle), [&](const Item& item) { return item.label < least; });
        visitor.split(at(parted, node.begin), middle - node.begin, at(parted, middle), node.end - middle,
                      labels[middle - 1], least);
        halves[2 * k] = {node.begin, middle};
        halves[2 * k + 1] = {middle, node.end};
      }
    });
    std::erase_if(halves, [](const Node& node) { return node.size() == 0; });
    nodes = std::move(halves);
    items.swap(parted);
  }
}

// Adds to the sums of each positive.
struct SumLabels {
  using Two __attribute__((vector_size(2 * sizeof(double)))) = double;  // 1, and a distance of labels

  Step h;
  SortSums* sums;

  auto ramp() const {
    return [this](double k, double i) { return step(h, k, i); };
  }

  void pairs(const Item* item, int64_t n) const {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t k = 0; k < n; ++k)
        add_pair(step(h, item[k].score, item[i].score), item[k].label - item[i].label, sums[item[i].r]);
  }

  void alike(const Item* item, int64_t n) const {
    sum_ramps<double>(
        item, n, item, n, h.scale, ramp(), [](const Item&) { return 1.0; },
        [&](const Item& i, double above) { sums[i.r].above += above; });
  }

  // Distances go by way of the labels on either side of the cut, so that none is a difference of others.
  void split(const Item* low, int64_t lows, const Item* high, int64_t highs, double below,
             double above) const {
    sum_ramps<Two>(
        low, lows, high, highs, h.scale, ramp(), [&](const Item& k) { return Two{1, below - k.label}; },
        [&](const Item& i, Two sum) {
          sums[i.r].below += sum[0];
          sums[i.r].below_distance += sum[1] + (i.label - below) * sum[0];
        });
    sum_ramps<Two>(
        high, highs, low, lows, h.scale, ramp(), [&](const Item& k) { return Two{1, k.label - above}; },
        [&](const Item& i, Two sum) {
          sums[i.r].above += sum[0];
          sums[i.r].above_distance += sum[1] + (above - i.label) * sum[0];
        });
  }
};

// Adds the gradients that positives i of a higher label send to each positive k.
struct SpreadShares {
  Step h;
  double* gradient;

  void pairs(const Item* item, int64_t n) const {
    for (int64_t k = 0; k < n; ++k)
      for (int64_t i = 0; i < n; ++i)
        if (item[i].label > item[k].label)
          gradient[item[k].r] += item[i].share * step(h, item[k].score, item[i].score);
  }

  void alike(const Item*, int64_t) const {}

  void split(const Item* low, int64_t lows, const Item* high, int64_t highs, double, double) const {
    sum_ramps<double>(
        std::reverse_iterator(high + highs), highs, std::reverse_iterator(low + lows), lows, h.scale,
        [this](double i, double k) { return step(h, k, i); }, [](const Item& i) { return i.share; },
        [&](const Item& k, double sum) { gradient[k.r] += sum; });
  }
};

}  // namespace

void compute_sort_errors(const Input& input, const Spec& spec, const SortErrors& errors,
                         const Output& output) {
  const Step h = make_step(input.delta);
  const int64_t p = input.p;
  const Tables& tables = output.tables;
  const double z = static_cast<double>(p), poison = *tables.poison;
  std::vector<Item> items(p);
  for (int64_t r = 0; r < p; ++r) {
    // What was not found, or is NaN, has any label: every result is NaN.
    const double label = errors.label_at[r] >= 0 ? load(spec.labels, errors.label_at[r]) : 0;
    items[r] = {tables.score[r], label == label ? label : 0, 0, r};
  }
  std::vector<double> labels(p);
  std::transform(items.begin(), items.end(), labels.begin(), [](const Item& item) { return item.label; });
  std::sort(labels.begin(), labels.end());

  std::vector<SortSums> sums(p);
  visit(items, labels, SumLabels{h, sums.data()});
  double* const gradient = tables.error_gradient;
  double sum = 0;
  for (int64_t r = 0; r < p; ++r) {
    const double error = sort_error(sums[r]);
    sum += error;
    items[r].share = share(error, sums[r].below, spec.eps, z);
    if (gradient)  // not poisoned: write_positives() adds it to what is
      gradient[r] = positive_gradient(error, sums[r].below, spec.eps, z);
  }
  store({output.loc, output.values}, 0, sum / z + poison);
  if (gradient) visit(items, labels, SpreadShares{h, gradient});
}

}  // namespace alrp::cpu

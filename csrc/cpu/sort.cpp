#include "sort.h"

#include <algorithm>
#include <array>
#include <utility>

namespace alrp::cpu {
namespace {

constexpr int kDigits = 8, kBits = 8;
constexpr size_t kFew = 64;  // from here on the digits' counts are worth making

int digit_of(const Keyed& item, int digit) { return static_cast<int>(item.key >> (digit * kBits) & 0xff); }

}  // namespace

void sort(std::vector<Keyed>* items) {
  if (items->size() < kFew) {
    std::stable_sort(items->begin(), items->end(),
                     [](const Keyed& a, const Keyed& b) { return a.key < b.key; });
    return;
  }
  std::array<std::array<size_t, 1 << kBits>, kDigits> counts{};
  for (const Keyed& item : *items)
    for (int d = 0; d < kDigits; ++d) ++counts[d][digit_of(item, d)];
  std::vector<Keyed> other(items->size());
  for (int d = 0; d < kDigits; ++d) {
    if (counts[d][digit_of(items->front(), d)] == items->size()) continue;  // all have this digit
    size_t next = 0;
    for (size_t& count : counts[d]) next += std::exchange(count, next);
    for (const Keyed& item : *items) other[counts[d][digit_of(item, d)]++] = item;
    items->swap(other);
  }
}

}  // namespace alrp::cpu

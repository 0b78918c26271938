#include "sort.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

namespace alrp::cpu {
namespace {

constexpr int kKeyBits = 64, kBits = 9, kValues = 1 << kBits;
constexpr int kMostDigits = (kKeyBits + kBits - 1) / kBits;
constexpr size_t kFew = 64;  // from here on the digits' counts are worth making

}  // namespace

void sort(int skip, std::vector<Keyed>* items) {
  if (items->size() < kFew) {
    std::stable_sort(items->begin(), items->end(),
                     [skip](const Keyed& a, const Keyed& b) { return a.key >> skip < b.key >> skip; });
    return;
  }
  const int digits = (kKeyBits - skip + kBits - 1) / kBits;
  const auto digit_of = [skip](const Keyed& item, int digit) {
    return item.key >> skip >> digit * kBits & (kValues - 1);
  };
  std::array<std::array<uint32_t, kValues>, kMostDigits> counts;
  std::fill_n(counts.begin(), digits, std::array<uint32_t, kValues>{});
  for (const Keyed& item : *items)
    for (int d = 0; d < digits; ++d) ++counts[d][digit_of(item, d)];
  std::vector<Keyed> other(items->size());
  for (int d = 0; d < digits; ++d) {
    if (counts[d][digit_of(items->front(), d)] == items->size()) continue;  // all have this digit
    uint32_t next = 0;
    for (uint32_t& count : counts[d]) next += std::exchange(count, next);
    for (const Keyed& item : *items) other[counts[d][digit_of(item, d)]++] = item;
    items->swap(other);
  }
}

}  // namespace alrp::cpu

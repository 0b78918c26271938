// Sorting the positives on the CPU.
#pragma once

#include <cstdint>
#include <vector>

namespace alrp::cpu {

struct Keyed {
  uint64_t key;
  int64_t place;
};

// Ascending by key, stable. By digits: keys of float scores differ in few, and nothing is compared.
void sort(std::vector<Keyed>* items);

}  // namespace alrp::cpu

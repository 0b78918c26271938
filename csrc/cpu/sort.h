// Sorting the positives on the CPU.
#pragma once

#include <cstdint>
#include <vector>

namespace alrp::cpu {

struct Keyed {
  uint64_t key;
  int64_t place;
};

// Radix sort, stable, ascending by key without its lowest `skip` bits.
void sort(int skip, std::vector<Keyed>* items);

}  // namespace alrp::cpu

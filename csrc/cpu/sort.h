// Sorting the positives on the CPU.
#pragma once

#include <cstdint>
#include <vector>

namespace alrp::cpu {

struct Keyed {
  uint64_t key;
  int64_t place;
};

// Ascending by key without its lowest `room` bits, stable. By digits: nothing is compared.
void sort(int room, std::vector<Keyed>* items);

}  // namespace alrp::cpu

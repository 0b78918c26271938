// Finding and sorting the positives on the CPU; see Backend for what each computes.
#pragma once

#include "../ranking.h"

namespace alrp::cpu {

void count_positives(const Input& input, Status* status);
void find_positives(const Input& input, const Tables& tables, int64_t* place, Status* status);

}  // namespace alrp::cpu

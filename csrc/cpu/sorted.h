// The stages of Backend by sorted knots, O((P + N) log P); see Backend for what each computes and positions.h
// for how.
//
// Infinite and NaN weights do not go through prefix sums: a call that meets one is passed to the tiled form.
#pragma once

#include "../ranking.h"

namespace alrp::cpu::sorted {

void count(const Input& input, const double* score, double* n_fp, Status* status);
void pair_sums(const Input& input, const Spec& spec, const double* score, const Sums& sums);
void error_gradient(const Input& input, const Sums& sums, const Tables& tables);
void spread(const Input& input, const Tables& tables, const Gradients& gradients);

}  // namespace alrp::cpu::sorted

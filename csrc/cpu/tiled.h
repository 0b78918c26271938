// The stages of Backend that compare pair by pair, O(P N) and O(P^2); see Backend for what each computes.
#pragma once

#include "../ranking.h"

namespace alrp::cpu::tiled {

size_t scratch_bytes(const Input& input);
// `norm` may be null.
void count(const Input& input, const double* score, double* n_fp, double* norm, Status* status,
           void* scratch);
void count_part(const Input& input, const double* score, double* part, Status* status, void* scratch);
void count_from_parts(const Input& input, const double* sum, const Sums& sums, Status* status);
void pair_sums(const Input& input, const Spec& spec, const double* score, const Sums& sums);
void pair_product(const Input& input, const double* score, const double* weights, bool transposed,
                  double* out);
void error_gradient(const Input& input, const Sums& sums, const Tables& tables);
void spread(const Input& input, const Tables& tables, const Gradients& gradients);

}  // namespace alrp::cpu::tiled

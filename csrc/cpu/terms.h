// From the sums of the positives to losses, tables and gradients, on the CPU.
#pragma once

#include <vector>

#include "../ranking.h"

namespace alrp::cpu {

// Losses, rank, precision; tables.share, .gradient, .poison; .error_gradient for the hard order.
void compute_terms(const Input& input, const Spec& spec, const Sums& sums, const Output& output);

// 1 / (p rank(i)), the weights of dL_loc/dE.
std::vector<double> rank_weights(const Sums& sums, int64_t p);

// Rank & Sort: output.loc, and tables.error_gradient unless it is null. Of positives alone, O(p log p).
void compute_sort_errors(const Input& input, const Spec& spec, const SortErrors& errors,
                         const Output& output);

// tables.share and .gradient of errors that the caller brings.
void take_errors(const Input& input, const Drive& drive, const Tables& tables);

// Gradients of the positives' scores and of loc_errors.
void write_positives(const Input& input, const Tables& tables, const Gradients& gradients);

}  // namespace alrp::cpu

// The stages of Backend by sorted knots, O((P + N) log P); see Backend for what each computes and positions.h
// for how.
//
// Infinite and NaN weights do not go through prefix sums: a call that meets one is passed to the tiled form.
#pragma once

#include <functional>
#include <memory>

#include "../ranking.h"

namespace alrp::cpu {

// The stages of the forward pass, which share the positives' positions and knots.
class SortedForm {
 public:
  virtual ~SortedForm() = default;

  // p > 0 ascending scores. Both arguments stay alive.
  static std::unique_ptr<SortedForm> make(const Input& input, const double* score);

  // One thread runs `meanwhile` first, which must not read what this sets, while the others count.
  virtual void count(double* n_fp, Status* status, const std::function<void()>& meanwhile) const = 0;
  // count in two halves, see Backend::count_part.
  virtual void count_part(int64_t* words, Status* status) const = 0;
  virtual void count_from_parts(const int64_t* words, double* n_fp) const = 0;
  virtual void pair_sums(const Spec& spec, const Sums& sums) = 0;
  // Weights and sums in the tables' order.
  virtual void pair_product(const double* weights, bool transposed, double* out) = 0;
  virtual void error_gradient(const Sums& sums, const Tables& tables) = 0;
};

// The backward pass, with p > 0 positives.
void spread_sorted(const Input& input, const Tables& tables, const Gradients& gradients);

}  // namespace alrp::cpu

// The stages of Backend by sorted knots, O((P + N) log P); see Backend for what each computes and positions.h
// for how. Infinite and NaN weights do not go through prefix sums: the tiled form takes them.
#pragma once

#include <memory>

#include "../ranking.h"

namespace alrp::cpu {

// One pass, whose stages share the positives' positions and knots.
class SortedForm {
 public:
  virtual ~SortedForm() = default;

  // p > 0 ascending scores. Both arguments stay alive, and what is missing of the tables comes as stages go on.
  static std::unique_ptr<SortedForm> make(const Input& input, const Tables& tables);

  virtual void count(const Spec& spec, const Sums& sums, Status* status) = 0;
  virtual void count_part(int64_t* part, Status* status) = 0;
  virtual void count_from_parts(const Spec& spec, const int64_t* sum, const Sums& sums, Status* status) = 0;
  virtual void error_gradient(const Sums& sums) = 0;
  virtual void spread(const Status& status, const Gradients& gradients) = 0;
  // Weights and sums in the tables' order.
  virtual void pair_product(const double* weights, bool transposed, double* out) = 0;
};

}  // namespace alrp::cpu

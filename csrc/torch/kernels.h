// What computes a ranking on tensors: the extension's own backends, or one that was registered from Python.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <tuple>

namespace alrp {

// How targets label logits; see Labels.
struct TargetLayout {
  int64_t classes;
  int64_t background;
  bool continuous;  // a positive's label is any finite number above 0, not 1
};

// What every pass over the logits reads: contiguous tensors of one device that fit together.
struct Problem {
  at::Tensor logits, targets;
  TargetLayout layout;
  double delta;
  int64_t algorithm;  // of Algorithm
  double skew = 1;
};

// (cls, loc, rank, precision, index, tables, status); see Output, Tables and Status. `tables` is float64:
// the backend's own, then score, share, gradient and, if wanted, error_gradient (p each), then poison.
// Continuous labels are Rank & Sort's, which has the rank part in cls, the sort part in loc. `status` is int64 (3).
using ForwardResult =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// What a loss of the caller's own is made of: (sums, place, index, tables, status). `sums` is float64 (3, p), or
// (4, p) for a skew other than 1: score, rank+, N_FP and, with a skew, the norm, ascending by score. The tables
// hold no errors until `drive`.
using SumsResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

class Kernels {
 public:
  // `is_asynchronous`: a look at a value makes the host wait.
  explicit Kernels(bool is_asynchronous) : is_asynchronous_(is_asynchronous) {}
  virtual ~Kernels() = default;

  bool is_asynchronous() const { return is_asynchronous_; }

  // status of the labels alone. The problem's delta, algorithm and skew are not read.
  virtual at::Tensor count_positives(const Problem& problem) const = 0;

  virtual ForwardResult forward(const Problem& problem, int64_t num_positives, int64_t loss,
                                const std::optional<at::Tensor>& loc_errors, bool want_error_gradient,
                                double eps) const = 0;

  // Writes grad_logits where grad_cls is given, and grad_loc_errors where grad_loc is; with continuous labels both
  // incoming gradients go to the logits.
  virtual void backward(const Problem& problem, const at::Tensor& index, const at::Tensor& tables,
                        const std::optional<at::Tensor>& grad_cls, const std::optional<at::Tensor>& grad_loc,
                        const std::optional<at::Tensor>& grad_logits,
                        const std::optional<at::Tensor>& grad_loc_errors) const = 0;

  virtual SumsResult sums(const Problem& problem, int64_t num_positives) const = 0;

  // Writes the errors (p), in flat order, and Z (scalar), float64, into the tables that `backward` reads.
  virtual void drive(const Problem& problem, const at::Tensor& index, const at::Tensor& tables,
                     const at::Tensor& place, const at::Tensor& sums, const at::Tensor& errors,
                     const at::Tensor& z, double eps) const = 0;

  // Weights (p) summed over the other positives, float64 (p) in flat order; see Backend::pair_product.
  virtual at::Tensor pair_product(const Problem& problem, const at::Tensor& index, const at::Tensor& tables,
                                  const at::Tensor& place, const at::Tensor& weights,
                                  bool transposed) const = 0;

 private:
  bool is_asynchronous_;
};

// The kernels called so: "cpu" and, where they were built, "cuda", or what register_kernels was given.
const Kernels& kernels_of(const std::string& backend);

// `kernels` lives as long as it may be called.
void register_kernels(const std::string& backend, const Kernels* kernels);

}  // namespace alrp

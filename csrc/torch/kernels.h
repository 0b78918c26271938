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
  int64_t others = 0;  // logits of other processes; see Input
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

// (place, score, index, status) of the positives in these logits: p each, ascending by score; score is float64.
using PositivesResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// (tables, part): the tables that the second half and backward go on with, and what is to be added up over the
// processes, int64 (sorted) or float64 (tiled); see part_size.
using PartResult = std::tuple<at::Tensor, at::Tensor>;

// (cls, loc, rank, precision).
using PartsResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

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

  // One ranking over the logits of several processes, in the steps between which they exchange what is P-sized: see
  // ranking.h for the halves of forward. Of this process's positives; only the labels and the logits are read.
  virtual PositivesResult find_positives(const Problem& problem, int64_t num_positives) const = 0;

  // `index` (int64) and `score` (float64) are those of all positives; `status`, int64 (3), is written.
  virtual PartResult count_part(const Problem& problem, bool want_error_gradient, const at::Tensor& index,
                                const at::Tensor& score, const at::Tensor& status) const = 0;

  // index, tables and status are those of count_part, `sum` its added-up part. `values`: loc_errors of aLRP,
  // float64 labels of Rank & Sort; of all positives in flat order.
  virtual PartsResult forward_from_parts(const Problem& problem, int64_t loss,
                                         const std::optional<at::Tensor>& values, double eps,
                                         const at::Tensor& place, const at::Tensor& index,
                                         const at::Tensor& tables, const at::Tensor& sum,
                                         const at::Tensor& status) const = 0;

  // The sums likewise, as SumsResult has them.
  virtual at::Tensor sums_from_parts(const Problem& problem, const at::Tensor& place, const at::Tensor& index,
                                     const at::Tensor& tables, const at::Tensor& sum,
                                     const at::Tensor& status) const = 0;

 private:
  bool is_asynchronous_;
};

// The kernels called so: "cpu" and, where they were built, "cuda", or what register_kernels was given.
const Kernels& kernels_of(const std::string& backend);

// `kernels` lives as long as it may be called.
void register_kernels(const std::string& backend, const Kernels* kernels);

}  // namespace alrp

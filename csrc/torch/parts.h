// One ranking over the logits of several processes, in the steps between which they exchange what is P-sized. See
// ranking.h for the halves of forward; `others`: the logits of the other processes.
#pragma once

#include "glue.h"

namespace alrp {

// (place, score, index, status) of the positives in these logits: p each, ascending by score; score is float64.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> find_positives(const at::Tensor& logits,
                                                                          const at::Tensor& targets,
                                                                          TargetLayout layout,
                                                                          int64_t num_positives);

// (tables, part): the tables that the second half and backward go on with, and what is to be added up over the
// processes, int64 (sorted) or float64 (tiled); see part_size. `score` (float64) and `index` (int64) are those of all
// positives; `status`, int64 (3), is written.
std::tuple<at::Tensor, at::Tensor> count_part(const at::Tensor& logits, const at::Tensor& targets,
                                              TargetLayout layout, int64_t others, double delta,
                                              int64_t algorithm, double skew, bool want_error_gradient,
                                              const at::Tensor& index, const at::Tensor& score,
                                              const at::Tensor& status);

// (cls, loc, rank, precision); index, tables and status are those of count_part, `sum` its added-up part. `values`:
// loc_errors of aLRP, float64 labels of Rank & Sort; of all positives in flat order.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> forward_from_parts(
    const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout, int64_t others, int64_t loss,
    const std::optional<at::Tensor>& values, double delta, double eps, int64_t algorithm,
    const at::Tensor& place, const at::Tensor& index, const at::Tensor& tables, const at::Tensor& sum,
    const at::Tensor& status);

// (rank_pos, n_fp, norm) likewise, as `sums` gives them.
std::tuple<at::Tensor, at::Tensor, at::Tensor> sums_from_parts(
    const at::Tensor& logits, const at::Tensor& targets, TargetLayout layout, int64_t others, double delta,
    int64_t algorithm, double skew, const at::Tensor& place, const at::Tensor& index,
    const at::Tensor& tables, const at::Tensor& sum, const at::Tensor& status);

}  // namespace alrp

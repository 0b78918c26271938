// One ranking over the logits of several processes, in the steps between which they exchange what is as long as the positives.
// Every process goes on with all p positives: its own, whose `index` is their flat index in its logits, and the others', -1;
// ascending by `score`, with `place` their flat order.
#pragma once

#include <tuple>

#include "call.h"

namespace alrp {

// (place, score, index, status) of the positives in these logits: p each, score float64; status as Status, int64 (4), which
// says how many there are and does not need the right p.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> find_positives(
    const std::vector<at::Tensor>& logits, const at::Tensor& targets, const Call& call, int64_t p);

// (state, part): `part` is to be added up over the processes, int64 (sorted) or float64 (tiled); see part_size. `status` is
// that of all positives, but for nan and ignored, which are this process's.
std::tuple<at::Tensor, at::Tensor> count_part(const std::vector<at::Tensor>& logits,
                                              const at::Tensor& targets, const Call& call,
                                              const at::Tensor& index, const at::Tensor& score,
                                              const at::Tensor& status);

// (cls, loc, ranks) from the sum of the parts. `values`, of all positives in flat order: loc_errors of aLRP, float64 labels
// of Rank & Sort.
std::tuple<at::Tensor, at::Tensor, at::Tensor> loss_from_parts(
    const std::vector<at::Tensor>& logits, const at::Tensor& targets, const Call& call, int64_t loss,
    double eps, const std::optional<at::Tensor>& values, const at::Tensor& place, const at::Tensor& state,
    const at::Tensor& sum);

// (sums, poison) as the operator ranking_sums has them.
std::tuple<at::Tensor, at::Tensor> sums_from_parts(const std::vector<at::Tensor>& logits,
                                                   const at::Tensor& targets, const Call& call,
                                                   const at::Tensor& place, const at::Tensor& state,
                                                   const at::Tensor& sum);

}  // namespace alrp

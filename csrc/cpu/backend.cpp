// Which form a stage runs.
#include "backend.h"

#include <algorithm>
#include <vector>

#include "positives.h"
#include "terms.h"
#include "tiled.h"

namespace alrp::cpu {
namespace {

bool is_sorted_form(const Input& input) { return input.algorithm == Algorithm::kSorted && input.p > 0; }

}  // namespace

size_t CpuBackend::scratch_bytes(const Input& input) const {
  return is_sorted_form(input) ? 0 : tiled::scratch_bytes(input);
}

void CpuBackend::place_maps(const Map* maps, int64_t count, Map* to) { std::copy_n(maps, count, to); }

void CpuBackend::count_positives(const Input& input, Status* status, void*) {
  cpu::count_positives(input, status);
}

void CpuBackend::find(const Input& input, const Tables& tables, int64_t* place, Status* status, void*) {
  find_positives(input, tables, place, status);
}

void CpuBackend::count(const Input& input, const Spec& spec, const Tables& tables, const Sums& sums,
                       Status* status, void* scratch) {
  if (is_sorted_form(input)) {
    sorted_ = SortedForm::make(input, tables);
    return sorted_->count(spec, sums, status);
  }
  tiled::count(input, tables.score, sums.n_fp, sums.norm, status, scratch);
  tiled::pair_sums(input, spec, tables.score, sums);
}

void CpuBackend::count_part(const Input& input, const Tables& tables, void* part, Status* status,
                            void* scratch) {
  if (is_sorted_form(input))
    return SortedForm::make(input, tables)->count_part(static_cast<int64_t*>(part), status);
  tiled::count_part(input, tables.score, static_cast<double*>(part), status, scratch);
}

void CpuBackend::count_from_parts(const Input& input, const Spec& spec, const Tables& tables, const void* sum,
                                  const Sums& sums, Status* status) {
  if (is_sorted_form(input)) {
    sorted_ = SortedForm::make(input, tables);
    return sorted_->count_from_parts(spec, static_cast<const int64_t*>(sum), sums, status);
  }
  tiled::count_from_parts(input, static_cast<const double*>(sum), sums, status);
  tiled::pair_sums(input, spec, tables.score, sums);
}

void CpuBackend::finish(const Input& input, const Spec& spec, const Sums& sums, const SortErrors& sort,
                        const Output& output) {
  compute_terms(input, spec, sums, output);
  if (spec.loss == Loss::kRankSort && input.p > 0) compute_sort_errors(input, spec, sort, output);
  if (spec.loss != Loss::kALRP || !output.tables.error_gradient) return;
  if (is_sorted_form(input)) return sorted_->error_gradient(sums);
  tiled::error_gradient(input, sums, output.tables);
}

void CpuBackend::spread(const Input& input, const Status* status, const Tables& tables,
                        const Gradients& gradients) {
  if (gradients.grad_cls && is_sorted_form(input))
    SortedForm::make(input, tables)->spread(*status, gradients);
  else if (gradients.grad_cls)
    tiled::spread(input, tables, gradients);
  write_positives(input, tables, gradients);
}

void CpuBackend::drive(const Input& input, const Drive& drive, const Tables& tables) {
  take_errors(input, drive, tables);
}

void CpuBackend::pair_product(const Input& input, const Tables& tables, const int64_t* place,
                              const double* weights, bool transposed, double* out) {
  const int64_t p = input.p;
  std::vector<double> own(p), sums(p);
  for (int64_t r = 0; r < p; ++r) own[r] = weights[place[r]];
  if (is_sorted_form(input))
    SortedForm::make(input, tables)->pair_product(own.data(), transposed, sums.data());
  else
    tiled::pair_product(input, tables.score, own.data(), transposed, sums.data());
  for (int64_t r = 0; r < p; ++r) out[place[r]] = sums[r];
}

}  // namespace alrp::cpu

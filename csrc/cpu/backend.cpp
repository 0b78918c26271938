// Which algorithm a stage runs.
#include "backend.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "array.h"
#include "positives.h"
#include "sorted.h"
#include "terms.h"
#include "tiled.h"

namespace alrp::cpu {
namespace {

bool is_sorted_form(const Input& input) { return input.algorithm == Algorithm::kSorted && input.p > 0; }

bool finite(const double* values, int64_t size) {
  return std::all_of(values, values + size, [](double value) { return std::isfinite(value); });
}

bool finite(const Array& values, int64_t size) {
  for (int64_t i = 0; i < size; ++i)
    if (!std::isfinite(load(values, i))) return false;
  return true;
}

// Whether the sums among the positives are the tiled form's: infinite and NaN weights do not go through prefix sums.
bool sums_by_pairs(const Input& input, const Spec& spec, const Sums& sums) {
  return !is_sorted_form(input) || (sums.s && !finite(spec.loc_errors, input.p));
}

}  // namespace

size_t CpuBackend::scratch_bytes(const Input& input) const {
  return is_sorted_form(input) ? 0 : tiled::scratch_bytes(input);
}

void CpuBackend::count_positives(const Input& input, Status* status, void*) {
  cpu::count_positives(input, status);
}

void CpuBackend::find(const Input& input, const Tables& tables, int64_t* place, Status* status, void*) {
  find_positives(input, tables, place, status);
}

void CpuBackend::count(const Input& input, const Spec& spec, const Tables& tables, const Sums& sums,
                       Status* status, void* scratch) {
  const bool by_pairs = sums_by_pairs(input, spec, sums);
  if (is_sorted_form(input)) {
    sorted_ = SortedForm::make(input, tables.score);
    // On one thread, however many positives there are.
    sorted_->count(sums.n_fp, status, [&] {
      if (!by_pairs) sorted_->pair_sums(spec, sums);
    });
  } else {
    tiled::count(input, tables.score, 1, sums.n_fp, status, scratch);
    if (sums.norm) tiled::count(input, tables.score, input.skew, sums.norm, status, scratch);
  }
  if (by_pairs) tiled::pair_sums(input, spec, tables.score, sums);
}

void CpuBackend::count_part(const Input& input, const Tables& tables, void* part, Status* status,
                            void* scratch) {
  const int64_t nan_at = part_size(input) - 1;
  if (is_sorted_form(input)) {
    auto* words = static_cast<int64_t*>(part);
    SortedForm::make(input, tables.score)->count_part(words, status);
    words[nan_at] = status->nan;
  } else {
    auto* sums = static_cast<double*>(part);
    tiled::count(input, tables.score, 1, sums, status, scratch);
    if (input.skew != 1) tiled::count(input, tables.score, input.skew, sums + input.p, status, scratch);
    sums[nan_at] = static_cast<double>(status->nan);
  }
}

void CpuBackend::count_from_parts(const Input& input, const Spec& spec, const Tables& tables, const void* sum,
                                  const Sums& sums, Status* status) {
  const int64_t nan_at = part_size(input) - 1;
  const bool by_pairs = sums_by_pairs(input, spec, sums);
  if (is_sorted_form(input)) {
    const auto* words = static_cast<const int64_t*>(sum);
    sorted_ = SortedForm::make(input, tables.score);
    sorted_->count_from_parts(words, sums.n_fp);
    status->nan |= words[nan_at] != 0;
    if (!by_pairs) sorted_->pair_sums(spec, sums);
  } else {
    const auto* parts = static_cast<const double*>(sum);
    std::copy(parts, parts + input.p, sums.n_fp);
    if (sums.norm) std::copy(parts + input.p, parts + 2 * input.p, sums.norm);
    status->nan |= parts[nan_at] != 0;
  }
  if (by_pairs) tiled::pair_sums(input, spec, tables.score, sums);
}

void CpuBackend::finish(const Input& input, const Spec& spec, const Sums& sums, const SortErrors& sort,
                        const Output& output) {
  compute_terms(input, spec, sums, output);
  if (spec.loss == Loss::kRankSort && input.p > 0) compute_sort_errors(input, spec, sort, output);
  if (spec.loss != Loss::kALRP || !output.tables.error_gradient) return;
  if (is_sorted_form(input))
    sorted_->error_gradient(sums, output.tables);
  else
    tiled::error_gradient(input, sums, output.tables);
}

void CpuBackend::spread(const Input& input, const Tables& tables, const Gradients& gradients) {
  if (gradients.logits.data) {
    const Array incoming{const_cast<void*>(gradients.grad_cls), gradients.incoming};
    if (is_sorted_form(input) && finite(tables.share, input.p) && finite(incoming, 1))
      spread_sorted(input, tables, gradients);
    else
      tiled::spread(input, tables, gradients);
  }
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
  if (is_sorted_form(input) && finite(weights, p))
    SortedForm::make(input, tables.score)->pair_product(own.data(), transposed, sums.data());
  else
    tiled::pair_product(input, tables.score, own.data(), transposed, sums.data());
  for (int64_t r = 0; r < p; ++r) out[place[r]] = sums[r];
}

}  // namespace alrp::cpu

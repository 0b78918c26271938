// Which algorithm a stage runs.
#include "backend.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "array.h"
#include "sorted.h"
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

}  // namespace

size_t CpuBackend::scratch_bytes(const Input& input) const {
  return is_sorted_form(input) ? 0 : tiled::scratch_bytes(input);
}

void CpuBackend::count(const Input& input, const Tables& tables, double* n_fp, Status* status,
                       void* scratch) {
  if (!is_sorted_form(input)) return tiled::count(input, tables.score, 1, n_fp, status, scratch);
  sorted_ = SortedForm::make(input, tables.score);
  uncounted_ = {n_fp, status};
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
    sums[nan_at] = static_cast<double>(status->nan);
  }
}

void CpuBackend::count_from_parts(const Input& input, const Tables& tables, const void* sum, double* n_fp,
                                  Status* status) {
  const int64_t nan_at = part_size(input) - 1;
  if (is_sorted_form(input)) {
    const auto* words = static_cast<const int64_t*>(sum);
    sorted_ = SortedForm::make(input, tables.score);
    sorted_->count_from_parts(words, n_fp);
    status->nan |= words[nan_at] != 0;
  } else {
    const auto* sums = static_cast<const double*>(sum);
    std::copy(sums, sums + input.p, n_fp);
    status->nan |= sums[nan_at] != 0;
  }
}

void CpuBackend::pair_sums(const Input& input, const Spec& spec, const Tables& tables, const Sums& sums) {
  const bool sorted = is_sorted_form(input) && (!sums.s || finite(spec.loc_errors, input.p));
  // On one thread, however many positives there are.
  const auto sum = [&] { sorted_->pair_sums(spec, sums); };
  if (const auto uncounted = std::exchange(uncounted_, std::nullopt)) {
    sorted_->count(uncounted->n_fp, uncounted->status, sorted ? std::function<void()>(sum) : [] {});
  } else if (sorted) {
    sum();
  }
  if (!sorted) tiled::pair_sums(input, spec, tables.score, sums);
}

void CpuBackend::norms(const Input& input, const Tables& tables, double* norm, Status* status,
                       void* scratch) {
  tiled::count(input, tables.score, input.skew, norm, status, scratch);
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

void CpuBackend::error_gradient(const Input& input, const Sums& sums, const Tables& tables) {
  if (is_sorted_form(input))
    sorted_->error_gradient(sums, tables);
  else
    tiled::error_gradient(input, sums, tables);
}

void CpuBackend::spread(const Input& input, const Tables& tables, const Gradients& gradients, void*) {
  const Array incoming{const_cast<void*>(gradients.grad_cls), gradients.incoming};
  if (is_sorted_form(input) && finite(tables.share, input.p) && finite(incoming, 1))
    spread_sorted(input, tables, gradients);
  else
    tiled::spread(input, tables, gradients);
}

}  // namespace alrp::cpu

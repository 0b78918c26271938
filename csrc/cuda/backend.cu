// Which form a stage runs.
#include <algorithm>

#include "backend.h"
#include "stages.h"

namespace alrp::cuda {
namespace {

bool is_sorted_form(const Input& input) { return input.algorithm == Algorithm::kSorted && input.p > 0; }

}  // namespace

size_t CudaBackend::scratch_bytes(const Input& input) const {
  if (is_sorted_form(input)) return sorted::scratch_bytes(input, stream_);
  return std::max(positives_scratch_bytes(input, stream_), tiled::scratch_bytes(input));
}

size_t CudaBackend::table_bytes(const Input& input) const {
  return is_sorted_form(input) ? sorted::table_bytes(input) : 0;
}

void CudaBackend::place_maps(const Map* maps, int64_t count, Map* to) {
  cuda::place_maps(maps, count, to, stream_);
}

void CudaBackend::count_positives(const Input& input, Status* status, void* scratch) {
  cuda::count_positives(input, status, scratch, stream_);
}

void CudaBackend::find(const Input& input, const Tables& tables, int64_t* place, Status* status,
                       void* scratch) {
  const auto find = is_sorted_form(input) ? sorted::find : find_positives;
  find(input, tables, place, status, scratch, stream_);
}

void CudaBackend::count(const Input& input, const Spec& spec, const Tables& tables, const Sums& sums,
                        Status* status, void* scratch) {
  if (is_sorted_form(input)) return sorted::count(input, tables, status, stream_);
  tiled::count(input, tables, sums.n_fp, sums.norm, status, scratch, stream_);
  tiled::pair_sums(input, spec, tables, sums, stream_);
}

void CudaBackend::count_part(const Input& input, const Tables& tables, void* part, Status* status,
                             void* scratch) {
  if (is_sorted_form(input)) {
    sorted::lay_out(input, tables, status, stream_);
    sorted::count(input, tables, status, stream_);
    sorted::pack(input, tables, status, static_cast<int64_t*>(part), stream_);
  } else {
    auto* sums = static_cast<double*>(part);
    tiled::count(input, tables, sums, input.skew == 1 ? nullptr : sums + input.p, status, scratch, stream_);
    tiled::pack(input, status, sums, stream_);
  }
}

void CudaBackend::count_from_parts(const Input& input, const Spec& spec, const Tables& tables,
                                   const void* sum, const Sums& sums, Status* status) {
  if (is_sorted_form(input))
    return sorted::unpack(input, tables, static_cast<const int64_t*>(sum), status, stream_);
  tiled::unpack(input, static_cast<const double*>(sum), sums, status, stream_);
  tiled::pair_sums(input, spec, tables, sums, stream_);
}

void CudaBackend::finish(const Input& input, const Spec& spec, const Sums& sums, const SortErrors& sort,
                         const Output& output) {
  if (is_sorted_form(input)) {
    sorted::finish(input, spec, sums, output, stream_);
  } else {
    tiled::compute_terms(input, spec, sums, output, stream_);
    if (spec.loss == Loss::kALRP && output.tables.error_gradient)
      tiled::error_gradient(input, sums, output.tables, stream_);
  }
  if (spec.loss == Loss::kRankSort) compute_sort_errors(input, spec, sort, output, stream_);
}

void CudaBackend::spread(const Input& input, const Status* status, const Tables& tables,
                         const Gradients& gradients) {
  const bool is_sorted = is_sorted_form(input);
  if (gradients.grad_cls && input.n > 0) {
    if (is_sorted)
      sorted::spread(input, status, tables, gradients, stream_);
    else
      tiled::spread(input, tables, gradients, stream_);
  }
  write_others(input, is_sorted ? status : nullptr, tables, gradients, stream_);
}

void CudaBackend::drive(const Input& input, const Drive& drive, const Tables& tables) {
  take_errors(input, drive, tables, stream_);
  if (is_sorted_form(input)) sorted::drive(input, tables, stream_);
}

void CudaBackend::pair_product(const Input& input, const Tables& tables, const int64_t* place,
                               const double* weights, bool transposed, double* out) {
  cuda::pair_product(input, tables, place, weights, transposed, out, stream_);
}

}  // namespace alrp::cuda

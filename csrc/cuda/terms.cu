// The losses of the tiled form, errors that the caller brings, and the gradients of the positives and of
// their errors.
#include <algorithm>

#include "ignored.cuh"
#include "launch.cuh"
#include "stages.h"
#include "terms.cuh"

namespace alrp::cuda {
namespace {

// compute_terms by itself. launch  one_block(p)
__global__ void __launch_bounds__(kMostThreads) terms_kernel(Spec spec, Sums sums, Output output, int64_t p) {
  compute_terms(spec, sums, output, p);
}

// share and gradient of errors that the caller brings. launch  p threads
__global__ void drive_errors(Drive drive, Tables tables, int64_t p) {
  const int64_t r = own_item();
  if (r >= p) return;
  const double error = drive.errors[drive.place[r]], n_fp = drive.n_fp[r], z = *drive.z;
  tables.share[r] = share(error, n_fp, drive.norm[r], drive.eps, z);
  tables.gradient[r] = positive_gradient(error, n_fp, drive.eps, z) + *tables.poison;
}

// Over what spread wrote: the gradients of the positives' scores, and with a status 0 for what is ignored and walked; and
// the gradients of loc_errors.
//   launch  at least p threads
__global__ void __launch_bounds__(kThreads)
    scatter_gradients(Input input, const Status* status, Tables tables, Gradients gradients) {
  if (status && status->ignored)
    walk_ignored<kThreads>(input, [&](const Place& place, int64_t offset) {
      store({place.gradient, input.logits.dtype}, offset, 0);
    });
  const int64_t r = own_item();
  if (r >= input.p) return;
  if (gradients.grad_cls && tables.index[r] >= 0) {
    double gradient = tables.gradient[r] * load_scalar(gradients.grad_cls, gradients.incoming);
    if (gradients.grad_sort)
      gradient += tables.error_gradient[r] * load_scalar(gradients.grad_sort, gradients.incoming);
    store_gradient(input, tables.index[r], gradient);
  }
  if (gradients.loc_errors.data)
    store(gradients.loc_errors, r,
          tables.error_gradient[r] * load_scalar(gradients.grad_loc, gradients.incoming));
}

}  // namespace

void tiled::compute_terms(const Input& input, const Spec& spec, const Sums& sums, const Output& output,
                          cudaStream_t stream) {
  launch("terms_kernel", terms_kernel, one_block(input.p), stream, spec, sums, output, input.p);
}

void take_errors(const Input& input, const Drive& drive, const Tables& tables, cudaStream_t stream) {
  launch("drive_errors", drive_errors, per_item(input.p), stream, drive, tables, input.p);
}

void write_others(const Input& input, const Status* status, const Tables& tables, const Gradients& gradients,
                  cudaStream_t stream) {
  Shape shape = per_item(input.p);
  constexpr int64_t kRows = 8;  // a thread, for most calls ignore nothing
  if (!gradients.grad_cls || !is_walked(input)) status = nullptr;
  if (status)
    shape.blocks.x = std::max(shape.blocks.x, walking_blocks(label_count(input.labels, input.n) / kRows));
  launch("scatter_gradients", scatter_gradients, shape, stream, input, status, tables, gradients);
}

}  // namespace alrp::cuda

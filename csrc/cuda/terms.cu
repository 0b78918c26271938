// What is P-sized: losses, errors and shares from the sums, and the positives' gradients.
#include "launch.h"
#include "stages.h"
#include "terms.cuh"

namespace alrp::cuda {
namespace {

// compute_terms by itself. launch  one block of threads_for(p) threads
__global__ void __launch_bounds__(kOneBlock) terms_kernel(Spec spec, Sums sums, Output output, int64_t p) {
  compute_terms(spec, sums, output, p);
}

// share and gradient of errors that the caller brings. launch  p threads
__global__ void drive_errors(Drive drive, Tables tables, int64_t p) {
  const int64_t r = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (r >= p) return;
  const double error = drive.errors[drive.place[r]], n_fp = drive.n_fp[r], z = *drive.z;
  tables.share[r] = share(error, n_fp, drive.norm[r], drive.eps, z);
  tables.gradient[r] = positive_gradient(error, n_fp, drive.eps, z) + *tables.poison;
}

// Gradients of the positives' scores (over the zeros that spread left) and of loc_errors. launch  p threads
__global__ void scatter_gradients(Tables tables, Gradients gradients, int64_t p) {
  const int64_t r = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (r >= p) return;
  if (gradients.logits.data && tables.index[r] >= 0) {
    double gradient = tables.gradient[r] * load_scalar(gradients.grad_cls, gradients.incoming);
    if (gradients.grad_sort)
      gradient += tables.error_gradient[r] * load_scalar(gradients.grad_sort, gradients.incoming);
    store(gradients.logits, tables.index[r], gradient);
  }
  if (gradients.loc_errors.data)
    store(gradients.loc_errors, r,
          tables.error_gradient[r] * load_scalar(gradients.grad_loc, gradients.incoming));
}

}  // namespace

void tiled::compute_terms(const Input& input, const Spec& spec, const Sums& sums, const Output& output,
                          cudaStream_t stream) {
  terms_kernel<<<1, threads_for(input.p), 0, stream>>>(spec, sums, output, input.p);
  check_launch("terms_kernel");
}

void take_errors(const Input& input, const Drive& drive, const Tables& tables, cudaStream_t stream) {
  if (input.p == 0) return;
  drive_errors<<<grid_for(input.p), kThreads, 0, stream>>>(drive, tables, input.p);
  check_launch("drive_errors");
}

void write_positives(const Input& input, const Tables& tables, const Gradients& gradients,
                     cudaStream_t stream) {
  if (input.p == 0) return;
  scatter_gradients<<<grid_for(input.p), kThreads, 0, stream>>>(tables, gradients, input.p);
  check_launch("scatter_gradients");
}

}  // namespace alrp::cuda

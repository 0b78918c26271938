#include "ranking.h"

namespace alrp {
namespace {

// Lays the workspace out, over a null base to measure it.
struct Workspace {
  Sums sums;
  void* scratch;
  size_t bytes = 0;

  Workspace(const Backend& backend, const Input& input, void* base) {
    const auto p = static_cast<size_t>(input.p);
    sums.place = static_cast<int64_t*>(take(base, p * sizeof(int64_t)));
    sums.rank_pos = static_cast<double*>(take(base, p * sizeof(double)));
    sums.n_fp = static_cast<double*>(take(base, p * sizeof(double)));
    sums.s = static_cast<double*>(take(base, p * sizeof(double)));
    scratch = take(base, backend.scratch_bytes(input));
  }

 private:
  void* take(void* base, size_t size) {
    void* here = base ? static_cast<char*>(base) + bytes : nullptr;
    bytes += (size + 255) / 256 * 256;
    return here;
  }
};

bool has_errors(Loss loss) { return loss == Loss::kALRP || loss == Loss::kALRPHard; }

}  // namespace

size_t workspace_bytes(const Backend& backend, const Input& input) {
  return Workspace(backend, input, nullptr).bytes;
}

void forward(Backend& backend, const Input& input, const Spec& spec, const Output& output, void* workspace) {
  Workspace work(backend, input, workspace);
  Sums sums = work.sums;
  if (!has_errors(spec.loss)) sums.s = nullptr;
  const Tables& tables = output.tables;
  backend.positives(input, tables, sums.place, output.status, work.scratch);
  backend.count(input, tables.score, sums.n_fp, output.status, work.scratch);
  backend.pair_sums(input, spec, tables.score, sums);
  backend.terms(input, spec, sums, output);
  if (tables.error_gradient && spec.loss == Loss::kALRP) backend.error_gradient(input, sums, tables);
}

void backward(Backend& backend, const Input& input, const Tables& tables, const Gradients& gradients, void* workspace) {
  if (gradients.logits.data) backend.spread(input, tables, gradients, Workspace(backend, input, workspace).scratch);
  backend.scatter(input, tables, gradients);
}

}  // namespace alrp

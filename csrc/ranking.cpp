#include "ranking.h"

#include "arena.h"

namespace alrp {
namespace {

struct Workspace {
  Sums sums;
  SortErrors sort{};
  void* scratch;
  size_t bytes;

  Workspace(const Backend& backend, const Input& input, void* base) {
    Arena arena(base);
    sums.place = arena.take<int64_t>(input.p);
    sums.rank_pos = arena.take<double>(input.p);
    sums.n_fp = arena.take<double>(input.p);
    sums.s = arena.take<double>(input.p);
    if (is_continuous(input.labels)) {
      sort.label = arena.take<double>(input.p);
      sort.error = arena.take<double>(input.p);
      sort.share = arena.take<double>(input.p);
    }
    scratch = arena.take<char>(static_cast<int64_t>(backend.scratch_bytes(input)));
    bytes = arena.bytes();
  }
};

bool has_errors(Loss loss) { return loss == Loss::kALRP || loss == Loss::kALRPHard; }

void run(Backend& backend, const Input& input, const Spec& spec, const Sums& sums, const Output& output,
         void* scratch) {
  const Tables& tables = output.tables;
  backend.positives(input, tables, sums.place, output.status, scratch);
  backend.count(input, tables, sums.n_fp, output.status, scratch);
  backend.pair_sums(input, spec, tables, sums);
  backend.terms(input, spec, sums, output);
}

}  // namespace

size_t workspace_bytes(const Backend& backend, const Input& input) {
  return Workspace(backend, input, nullptr).bytes;
}

void forward(Backend& backend, const Input& input, const Spec& given, const Output& output, void* workspace) {
  Spec spec = given;
  spec.tie = step(make_step(input.delta), 0, 0);
  Workspace work(backend, input, workspace);
  Sums sums = work.sums;
  if (!has_errors(spec.loss)) sums.s = nullptr;
  const Tables& tables = output.tables;
  run(backend, input, spec, sums, output, work.scratch);
  if (spec.loss == Loss::kRankSort && input.p > 0) backend.sort_errors(input, spec, work.sort, output);
  if (tables.error_gradient && spec.loss == Loss::kALRP) backend.error_gradient(input, sums, tables);
}

void sums(Backend& backend, const Input& input, const Sums& sums, double* norm, const Output& output,
          void* workspace) {
  const Spec spec{Loss::kGiven, 0, {nullptr, Dtype::kFloat32}, {nullptr, Dtype::kFloat32}};
  void* scratch = Workspace(backend, input, workspace).scratch;
  run(backend, input, spec, sums, output, scratch);
  if (input.skew != 1) backend.norms(input, output.tables, norm, output.status, scratch);
}

void backward(Backend& backend, const Input& input, const Tables& tables, const Gradients& gradients,
              void* workspace) {
  if (gradients.logits.data)
    backend.spread(input, tables, gradients, Workspace(backend, input, workspace).scratch);
  backend.scatter(input, tables, gradients);
}

}  // namespace alrp

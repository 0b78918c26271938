#include "ranking.h"

#include "arena.h"
#include "positions.h"

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

// From the logits to N_FP.
void count(Backend& backend, const Input& input, const Sums& sums, const Output& output, void* scratch) {
  backend.positives(input, output.tables, sums.place, output.status, scratch);
  backend.count(input, output.tables, sums.n_fp, output.status, scratch);
}

// From N_FP to the tables, for Loss::kGiven.
void finish_given(Backend& backend, const Input& input, const Sums& sums, const Output& output) {
  const Spec spec{Loss::kGiven, 0, {nullptr, Dtype::kFloat32}, {nullptr, Dtype::kFloat32}};
  backend.pair_sums(input, spec, output.tables, sums);
  backend.terms(input, spec, sums, output);
}

// From N_FP to losses and tables, for all other losses. `label_at` as Backend::sort_errors has it.
void finish(Backend& backend, const Input& input, const Spec& given, const Sums& all, const SortErrors& sort,
            const int64_t* label_at, const Output& output) {
  Spec spec = given;
  spec.tie = step(make_step(input.delta), 0, 0);
  Sums sums = all;
  if (!has_errors(spec.loss)) sums.s = nullptr;
  backend.pair_sums(input, spec, output.tables, sums);
  backend.terms(input, spec, sums, output);
  if (spec.loss == Loss::kRankSort && input.p > 0) backend.sort_errors(input, spec, sort, label_at, output);
  if (output.tables.error_gradient && spec.loss == Loss::kALRP)
    backend.error_gradient(input, sums, output.tables);
}

}  // namespace

size_t workspace_bytes(const Backend& backend, const Input& input) {
  return Workspace(backend, input, nullptr).bytes;
}

void forward(Backend& backend, const Input& input, const Spec& spec, const Output& output, void* workspace) {
  const Workspace work(backend, input, workspace);
  count(backend, input, work.sums, output, work.scratch);
  finish(backend, input, spec, work.sums, work.sort, output.tables.index, output);
}

void sums(Backend& backend, const Input& input, const Sums& sums, double* norm, const Output& output,
          void* workspace) {
  void* scratch = Workspace(backend, input, workspace).scratch;
  count(backend, input, sums, output, scratch);
  finish_given(backend, input, sums, output);
  if (input.skew != 1) backend.norms(input, output.tables, norm, output.status, scratch);
}

int64_t part_size(const Input& input) {
  if (input.algorithm == Algorithm::kSorted && input.p > 0) return kBinWords * (2 * input.p + 1) + 1;
  return (input.skew == 1 ? 1 : 2) * input.p + 1;
}

void count_part(Backend& backend, const Input& input, const Tables& tables, Status* status, void* part,
                void* workspace) {
  void* scratch = Workspace(backend, input, workspace).scratch;
  if (input.skew != 1) backend.norms(input, tables, static_cast<double*>(part) + input.p, status, scratch);
  backend.count_part(input, tables, part, status, scratch);
}

void forward_from_parts(Backend& backend, const Input& input, const Spec& spec, const int64_t* place,
                        const void* sum, const Output& output, void* workspace) {
  const Workspace work(backend, input, workspace);
  Sums sums = work.sums;
  sums.place = const_cast<int64_t*>(place);
  backend.count_from_parts(input, output.tables, sum, sums.n_fp, output.status);
  finish(backend, input, spec, sums, work.sort, place, output);
}

void sums_from_parts(Backend& backend, const Input& input, const Sums& sums, const void* sum,
                     const Output& output) {
  backend.count_from_parts(input, output.tables, sum, sums.n_fp, output.status);
  finish_given(backend, input, sums, output);
}

void backward(Backend& backend, const Input& input, const Tables& tables, const Gradients& gradients,
              void* workspace) {
  if (gradients.logits.data)
    backend.spread(input, tables, gradients, Workspace(backend, input, workspace).scratch);
  backend.scatter(input, tables, gradients);
}

}  // namespace alrp

#include "ranking.h"

#include "arena.h"
#include "positions.h"

namespace alrp {
namespace {

struct Workspace {
  Sums sums{};
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

constexpr Spec kGivenErrors{Loss::kGiven, 0, {nullptr, Dtype::kFloat32}, {nullptr, Dtype::kFloat32}};

// A pass of one of our own losses: what it needs of `work`, and H(0).
struct Pass {
  Spec spec;
  Sums sums;

  Pass(const Input& input, const Spec& given, const Workspace& work) : spec(given), sums(work.sums) {
    spec.tie = step(make_step(input.delta), 0, 0);
    if (spec.loss != Loss::kALRP && spec.loss != Loss::kALRPHard) sums.s = nullptr;
  }
};

}  // namespace

size_t workspace_bytes(const Backend& backend, const Input& input) {
  return Workspace(backend, input, nullptr).bytes;
}

void forward(Backend& backend, const Input& input, const Spec& spec, const Output& output, void* workspace) {
  Workspace work(backend, input, workspace);
  work.sort.label_at = output.tables.index;
  const Pass pass(input, spec, work);
  backend.find(input, output.tables, pass.sums.place, output.status, work.scratch);
  backend.count(input, pass.spec, output.tables, pass.sums, output.status, work.scratch);
  backend.finish(input, pass.spec, pass.sums, work.sort, output);
}

void sums(Backend& backend, const Input& input, const Sums& sums, const Output& output, void* workspace) {
  void* scratch = Workspace(backend, input, workspace).scratch;
  backend.find(input, output.tables, sums.place, output.status, scratch);
  backend.count(input, kGivenErrors, output.tables, sums, output.status, scratch);
  backend.finish(input, kGivenErrors, sums, {}, output);
}

int64_t part_size(const Input& input) {
  if (input.algorithm == Algorithm::kSorted && input.p > 0) return kBinWords * (2 * input.p + 1) + 1;
  return (input.skew == 1 ? 1 : 2) * input.p + 1;
}

void count_part(Backend& backend, const Input& input, const Tables& tables, Status* status, void* part,
                void* workspace) {
  backend.count_part(input, tables, part, status, Workspace(backend, input, workspace).scratch);
}

void forward_from_parts(Backend& backend, const Input& input, const Spec& spec, const int64_t* place,
                        const void* sum, const Output& output, void* workspace) {
  Workspace work(backend, input, workspace);
  work.sums.place = const_cast<int64_t*>(place);
  work.sort.label_at = place;
  const Pass pass(input, spec, work);
  backend.count_from_parts(input, pass.spec, output.tables, sum, pass.sums, output.status);
  backend.finish(input, pass.spec, pass.sums, work.sort, output);
}

void sums_from_parts(Backend& backend, const Input& input, const Sums& sums, const void* sum,
                     const Output& output) {
  backend.count_from_parts(input, kGivenErrors, output.tables, sum, sums, output.status);
  backend.finish(input, kGivenErrors, sums, {}, output);
}

}  // namespace alrp

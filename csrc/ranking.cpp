#include "ranking.h"

#include "positions.h"

namespace alrp {

// Close together, for every byte of an operator's output should be one that was written. The tests keep them apart, so that a
// write past an array's end is seen.
#ifndef ALRP_STATE_ALIGNMENT
#define ALRP_STATE_ALIGNMENT 8
#endif

State take_state(Arena& memory, const Backend& backend, const Input& input) {
  constexpr size_t kAlignment = ALRP_STATE_ALIGNMENT;
  const int64_t p = input.p;
  State state{};
  Tables& tables = state.tables;
  tables.device = memory.take<char>(static_cast<int64_t>(backend.table_bytes(input)));
  state.status = memory.take<Status>(1, kAlignment);
  tables.index = memory.take<int64_t>(p, kAlignment);
  tables.score = memory.take<double>(p, kAlignment);
  tables.share = memory.take<double>(p, kAlignment);
  tables.gradient = memory.take<double>(p, kAlignment);
  tables.poison = memory.take<double>(1, kAlignment);
  if (input.wants_error_gradient) tables.error_gradient = memory.take<double>(p, kAlignment);
  return state;
}

Workspace take_workspace(Arena& memory, const Backend& backend, const Input& input, Loss loss) {
  const int64_t p = input.p;
  Workspace work{};
  work.sums.place = memory.take<int64_t>(p);
  work.sums.rank_pos = memory.take<double>(p);
  work.sums.n_fp = memory.take<double>(p);
  if (loss == Loss::kALRP || loss == Loss::kALRPHard) work.sums.s = memory.take<double>(p);
  if (loss == Loss::kRankSort) {
    work.sort.label = memory.take<double>(p);
    work.sort.error = memory.take<double>(p);
    work.sort.share = memory.take<double>(p);
  }
  work.scratch = memory.take<char>(static_cast<int64_t>(backend.scratch_bytes(input)));
  return work;
}

int64_t part_size(const Input& input) {
  if (input.algorithm == Algorithm::kSorted && input.p > 0) return kBinWords * (2 * input.p + 1) + 1;
  return (input.skew == 1 ? 1 : 2) * input.p + 1;
}

}  // namespace alrp

#include "positives.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "../keys.h"
#include "array.h"
#include "label_walk.h"
#include "maps.h"
#include "parallel.h"
#include "sort.h"

namespace alrp::cpu {
namespace {

// What was found in one chunk of labels.
struct Chunk {
  std::vector<int64_t> index;  // flat indices of its positives, ascending
  std::vector<double> score;   // theirs, where asked for
  bool invalid = false, ignored = false;
};

// `scores`: whether the positives' are wanted. Read here, the loads are spread over the threads.
std::vector<Chunk> find(const Input& input, bool scores) {
  std::vector<Chunk> chunks(chunk_count(input.labels, input.n));
  on_each_thread(static_cast<int64_t>(chunks.size()), 1, [&](const auto& take) {
    take([&](int64_t c) {
      Chunk& chunk = chunks[c];
      walk_chunk(input.labels, input.n, c, [&](Mark mark, int64_t first, int64_t) {
        if (mark == Mark::kPositive) chunk.index.push_back(first);
        chunk.invalid |= mark == Mark::kInvalid;
        chunk.ignored |= mark == Mark::kIgnored;
      });
      if (!scores) return;
      chunk.score.reserve(chunk.index.size());
      for (const int64_t i : chunk.index) chunk.score.push_back(load(input, i));
    });
  });
  return chunks;
}

Status summary(const std::vector<Chunk>& chunks) {
  Status status{};
  for (const Chunk& chunk : chunks) {
    status.found += static_cast<int64_t>(chunk.index.size());
    status.invalid |= chunk.invalid;
    status.ignored |= chunk.ignored;
  }
  return status;
}

}  // namespace

void count_positives(const Input& input, Status* status) { *status = summary(find(input, false)); }

void find_positives(const Input& input, const Tables& tables, int64_t* place, Status* status) {
  const std::vector<Chunk> chunks = find(input, true);
  *status = summary(chunks);
  // At most p; a wrong p is reported by status.
  const auto found = std::min(status->found, input.p);
  std::vector<int64_t> flat;
  std::vector<Keyed> sorted(found);
  flat.reserve(found);
  for (const Chunk& chunk : chunks) {
    for (size_t k = 0; k < chunk.index.size() && static_cast<int64_t>(flat.size()) < found; ++k) {
      double score = chunk.score[k];
      if (score != score) {
        status->nan = 1;
        score = 0;  // any number: every result is NaN
      }
      const auto place = static_cast<int64_t>(flat.size());
      sorted[found - 1 - place] = {key_of(score), place};  // ties descend by flat index
      flat.push_back(chunk.index[k]);
    }
  }
  sort(input.logits.dtype == Dtype::kFloat64 ? 0 : kFloatRoom, &sorted);
  for (int64_t r = 0; r < found; ++r) {
    place[r] = sorted[r].place;
    tables.index[r] = flat[sorted[r].place];
    tables.score[r] = score_of(sorted[r].key);
  }
  for (int64_t r = found; r < input.p; ++r) {
    place[r] = r;
    tables.index[r] = -1;
    tables.score[r] = std::numeric_limits<double>::infinity();  // scores have to ascend
  }
}

}  // namespace alrp::cpu

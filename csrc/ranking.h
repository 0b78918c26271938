// One ranking loss, from logits to gradients, over any backend: find -> count -> finish -> spread.
//
// Every loss here touches the negatives through the matrix H[i,j] = H(s_j - s_i) of P positives i and N
// negatives j alone, and only by two products: count, H @ 1 = N_FP, and spread, H^T @ c. A backend computes
// these two (by an Algorithm), the same products among the positives, and the losses from the P sums. Plain C++ without
// torch: raw pointers and sizes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "arena.h"
#include "labels.h"
#include "maps.h"
#include "step.h"

namespace alrp {

enum class Loss : int32_t {
  kALRP,      // Eq. 9-14
  kALRPHard,  // the same, L_loc summed over the hard order of scores
  kAP,        // Eq. 2, 4
  kAPInterpolated,
  kNDCG,      // Z is the gain of ranking P positives first
  kRankSort,  // cls is the rank part, loc the sort part
  kGiven,     // the caller's own: values and errors come after the sums, by drive()
};

enum class Algorithm : int32_t {
  kTiled,   // pair by pair, O(P N): the exact baseline
  kSorted,  // by the sorted knots of the step functions, O((P + N) log P)
};

// A floating array as it lies in memory.
struct Array {
  void* data;
  Dtype dtype;
};

// What both passes read. All pointers are the backend's own memory: host or device.
struct Input {
  Logits logits;
  int64_t n;  // of them
  Labels labels;
  int64_t p;  // positives, as the caller gave them or as count_positives found
  double delta;
  Algorithm algorithm;
  double skew;  // p(j|i) goes by H(x_ij)^skew; 1 but for kTiled and kGiven
  int64_t others =
      0;  // logits of other processes whose positives are among the p, and whose counts are added
  bool wants_error_gradient = false;  // of Tables
};

// The logits that sums run over: what their width goes by.
ALRP_HD int64_t counted(const Input& input) { return input.n + input.others; }

// Facts that depend on values. The forward pass sets every field; where found != p or invalid, losses and
// gradients are NaN, so that a device need not stop to raise.
struct Status {
  int64_t found;    // positives among the labels
  int64_t invalid;  // 1: a label is impossible
  int64_t nan;      // above 0: a score that takes part is NaN
  int64_t ignored;  // not 0: a label may say that its logits are ignored
};

// What forward leaves for backward. Positives ascend by score; ties descend by flat index, so that
// the reverse is the hard order (descending by score, stable).
struct Tables {
  int64_t* index;    // (p) flat index of each positive, -1 where fewer than p were found
  double* score;     // (p) ascending; infinity where fewer than p were found
  double* share;     // (p) c(i) = e(i) / (Z N_FP(i)), the factor of H(x_ij) in the gradient of a negative
  double* gradient;  // (p) of the positives' scores
  double* error_gradient;  // (p) dL_loc/dE in the order of the flat index, or of the sort part by the
                           // positives' scores in that of the tables; null if not wanted
  double* poison;          // (1) 0, or NaN where every gradient is NaN
  void* device;            // table_bytes() of the backend's own: what its stages leave for later ones
};

// Results of forward, float64 for float64 logits, else float32 (`values`).
struct Output {
  Dtype values;
  void* cls;        // scalar
  void* loc;        // scalar
  void* rank;       // (p) in the order of the flat index
  void* precision;  // (p) likewise
  Tables tables;
  Status* status;
};

// The loss of a call.
struct Spec {
  Loss loss;
  double eps;
  Array loc_errors;  // (p), aLRP only
  Array labels;      // (n) continuous labels, Rank & Sort only
  double tie = 1;    // H(0), which forward fills in
};

// Sums of each positive, in the tables' order; `place` is its position in flat order.
struct Sums {
  int64_t* place;
  double* rank_pos;  // rank+(i) = 1 + sum over k != i of H(x_ik)
  double* n_fp;      // N_FP(i) = sum over negatives j of H(x_ij)
  double* s;         // S_i = sum over k != i of E_k H(x_ik); null where the loss has no errors
  double* norm;      // sum over negatives j of H(x_ij)^skew; null for a skew of 1
};

// Rank & Sort: where labels come from, and memory for its sort errors, in the tables' order.
struct SortErrors {
  const int64_t* label_at;  // (p) where in spec.labels the label of each positive lies, or -1
  double* label;            // (p) y(i)
  double* error;            // (p) l_S(i)
  double* share;            // (p) the factor of H(x_ik) in the gradient of a positive k of a lower label
};

// The errors of Loss::kGiven. All pointers are the backend's own memory.
struct Drive {
  const int64_t* place;  // (p), n_fp and norm: as sums() left them
  const double* n_fp;
  const double* norm;    // (p) sum over negatives of H(x_ij)^skew; n_fp itself for a skew of 1
  const double* errors;  // (p) e(i) in the order of the flat index
  const double* z;       // scalar, Z
  double eps;
};

// Gradients asked of backward, scaled by the incoming ones, which stay in the backend's memory.
struct Gradients {
  const void*
      grad_cls;  // scalar of type `incoming`; null if those of the logits are not wanted, else written everywhere
  Array loc_errors;       // (p); null data if not wanted
  const void* grad_loc;   // scalar of type `incoming`
  const void* grad_sort;  // likewise; null but for Rank & Sort, where it goes to the logits
  Dtype incoming;
};

// The stages of a pass on one device. Calls are asynchronous where the device is; those of one pass come in order, to one
// object. Scratch is what scratch_bytes() says, shared by all of them.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual size_t scratch_bytes(const Input& input) const = 0;

  // Writes maps to the backend's own memory, from that of the host.
  virtual void place_maps(const Map* maps, int64_t count, Map* to) = 0;

  // Bytes of tables.device, a function of the input's sizes, dtypes and delta.
  virtual size_t table_bytes(const Input&) const { return 0; }

  // status.found and .invalid of the labels alone, for a caller who does not know p (input.p is not read).
  virtual void count_positives(const Input& input, Status* status, void* scratch) = 0;

  // find: the positives, sorted: tables.index, tables.score, place; all of status but nan, which is
  // that of the positives.
  virtual void find(const Input& input, const Tables& tables, int64_t* place, Status* status,
                    void* scratch) = 0;

  // count: all of `sums` but place, which is read, or that from which finish makes them; status.nan.
  virtual void count(const Input& input, const Spec& spec, const Tables& tables, const Sums& sums,
                     Status* status, void* scratch) = 0;

  // count in two halves, for negatives of several processes: each counts its own, the caller adds the
  // parts up element by element, and all go on from the same sums. `part` is as part_size() says. The first half
  // takes positives that are found and sorted (index, score; status.found == p) and begins with them.
  virtual void count_part(const Input& input, const Tables& tables, void* part, Status* status,
                          void* scratch) = 0;
  virtual void count_from_parts(const Input& input, const Spec& spec, const Tables& tables, const void* sum,
                                const Sums& sums, Status* status) = 0;

  // finish: losses, rank, precision, and the tables but for index and score.
  virtual void finish(const Input& input, const Spec& spec, const Sums& sums, const SortErrors& sort,
                      const Output& output) = 0;

  // spread: gradient of every negative j = grad_cls * sum over i of share[i] H(s_j - score[i]), of the positives as the
  // tables have it, 0 for what is ignored; and the gradient of loc_errors.
  virtual void spread(const Input& input, const Status* status, const Tables& tables,
                      const Gradients& gradients) = 0;

  // tables.share and .gradient of errors that the caller brings, and what spread makes of them.
  virtual void drive(const Input& input, const Drive& drive, const Tables& tables) = 0;

  // out = Hpp @ weights without the diagonal: out[i] = sum over k != i of weights[k] H(x_ik); `transposed`:
  // out[k] = sum over i != k of weights[i] H(x_ik). Both in the order of the flat index, which `place` gives.
  virtual void pair_product(const Input& input, const Tables& tables, const int64_t* place,
                            const double* weights, bool transposed, double* out) = 0;
};

// What the passes share, in one piece of memory of the device: forward leaves it for backward.
struct State {
  Status* status;
  Tables tables;
};

State take_state(Arena& memory, const Backend& backend, const Input& input);

// What a forward pass needs until it ends.
struct Workspace {
  Sums sums{};        // without norm, and without s unless the loss has errors
  SortErrors sort{};  // Rank & Sort only
  void* scratch;
};

Workspace take_workspace(Arena& memory, const Backend& backend, const Input& input, Loss loss);

// Elements of 8 bytes of what count leaves in one process, for others to be added to.
//   sorted  int64: kBinWords (positions.h) for each of 2p + 1 bins, then status.nan: sums are those of one process
//   tiled   double: n_fp, then norm where the skew is not 1 (p each), then status.nan: sums round
int64_t part_size(const Input& input);

}  // namespace alrp

// The launches that stages are made of, by file.
#pragma once

#include <cuda_runtime.h>

#include "../ranking.h"

namespace alrp::cuda {

// maps.cu
void place_maps(const Map* maps, int64_t count, Map* to, cudaStream_t stream);

// positives.cu: finding them and sorting them by CUB, as many as there are.
size_t positives_scratch_bytes(const Input& input, cudaStream_t stream);
void count_positives(const Input& input, Status* status, void* scratch, cudaStream_t stream);
void find_positives(const Input& input, const Tables& tables, int64_t* place, Status* status, void* scratch,
                    cudaStream_t stream);

// The sorted form, with p > 0 positives. `finish` makes the sums, from the bins that `count` fills in its
// tables.
namespace sorted {

// A positive that is found: the key of its score, and its flat index.
struct alignas(16) Listed {
  uint64_t key;
  int64_t flat;
};

// find.cu: at most p positives, in any order; status.
void list_positives(const Input& input, Listed* list, Status* status, cudaStream_t stream);

// rank_positives.cu, and with it build_tables.cu. lay_out is find for positives that are found and sorted
// already.
size_t table_bytes(const Input& input);
size_t scratch_bytes(const Input& input, cudaStream_t stream);
void find(const Input& input, const Tables& tables, int64_t* place, Status* status, void* scratch,
          cudaStream_t stream);
void lay_out(const Input& input, const Tables& tables, const Status* status, cudaStream_t stream);

// build_tables.cu
void build(const Input& input, const Tables& tables, const Status* status, cudaStream_t stream);

void count(const Input& input, const Tables& tables, Status* status, cudaStream_t stream);  // count.cu

// parts.cu: the bins as words, and back.
void pack(const Input& input, const Tables& tables, const Status* status, int64_t* words,
          cudaStream_t stream);
void unpack(const Input& input, const Tables& tables, const int64_t* words, Status* status,
            cudaStream_t stream);

// compute_losses.cu
void finish(const Input& input, const Spec& spec, const Sums& sums, const Output& output,
            cudaStream_t stream);
void drive(const Input& input, const Tables& tables, cudaStream_t stream);

void spread(const Input& input, const Status* status, const Tables& tables, const Gradients& gradients,
            cudaStream_t stream);  // spread.cu

}  // namespace sorted

// The tiled form.
namespace tiled {

// tiled.cu. count: n_fp, and norm unless it is null.
size_t scratch_bytes(const Input& input);
void count(const Input& input, const Tables& tables, double* n_fp, double* norm, Status* status,
           void* scratch, cudaStream_t stream);
void pair_sums(const Input& input, const Spec& spec, const Tables& tables, const Sums& sums,
               cudaStream_t stream);
void error_gradient(const Input& input, const Sums& sums, const Tables& tables, cudaStream_t stream);
void spread(const Input& input, const Tables& tables, const Gradients& gradients, cudaStream_t stream);

// parts.cu: status.nan beside the sums, and back.
void pack(const Input& input, const Status* status, double* sums, cudaStream_t stream);
void unpack(const Input& input, const double* parts, const Sums& sums, Status* status, cudaStream_t stream);

void compute_terms(const Input& input, const Spec& spec, const Sums& sums, const Output& output,
                   cudaStream_t stream);  // terms.cu

}  // namespace tiled

// Either form. terms.cu: errors that the caller brings; gradients of what is no negative, and of loc_errors:
// positives, and with a status also what is ignored and walked.
void take_errors(const Input& input, const Drive& drive, const Tables& tables, cudaStream_t stream);
void write_others(const Input& input, const Status* status, const Tables& tables, const Gradients& gradients,
                  cudaStream_t stream);

// sort_errors.cu: Rank & Sort's output.loc, and tables.error_gradient unless it is null. Pairs of positives,
// O(p^2).
void compute_sort_errors(const Input& input, const Spec& spec, const SortErrors& errors, const Output& output,
                         cudaStream_t stream);

// tiled.cu: as Backend has it.
void pair_product(const Input& input, const Tables& tables, const int64_t* place, const double* weights,
                  bool transposed, double* out, cudaStream_t stream);

}  // namespace alrp::cuda

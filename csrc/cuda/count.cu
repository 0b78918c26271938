// count of the sorted form: one streaming pass over the logits.
#include "ignored.cuh"
#include "stages.h"
#include "stream.cuh"

namespace alrp::cuda::sorted {
namespace {

// Wide: one logit at a time, tables in global memory.
__device__ __forceinline__ void count_wide(const Input& input, const SortedTables& t, Status* status) {
  const Wide wide = t.wide(input.delta);
  const auto* knots = static_cast<const int128*>(t.knots);
  auto* bins = static_cast<Bin<uint128>*>(t.bins);
  bool nan = false;
  sweep_grid<kStreamThreads>(0, input.n, [&](int64_t i) {
    if (mark_of(input.labels, i) != Mark::kNegative) return;
    const double s = load(input, i);
    nan |= s != s;
    if (s != s) return;
    const int128 x = wide.of(s);
    if (x < knots[0]) return;
    auto* bin = reinterpret_cast<unsigned long long*>(&bins[segment_of(t, x)]);
    const auto low = static_cast<uint64_t>(x);
    const uint64_t before = atomicAdd(bin, low);
    atomicAdd(bin + 1, static_cast<uint64_t>(x >> 64) + (before + low < low));  // with the carry
    atomicAdd(bin + 2, 1ULL);
  });
  if (nan) raise(&status->nan);
}

// The tables where they are shared: a record of five words for each segment, an odd number so that neighbours
// fall in different banks: upper end, count, low and high word of the sum.
struct SharedBins {
  uint32_t* records;
  static constexpr int kWords = 5;

  __device__ __forceinline__ float upper(int m) const { return __uint_as_float(records[kWords * m]); }

  // Words wrap around. Shared 64-bit atomic additions would be loops of compare-and-swap.
  __device__ __forceinline__ void add(int m, uint32_t count, uint64_t sum) const {
    const auto record = static_cast<uint32_t>(__cvta_generic_to_shared(records + kWords * m));
    asm volatile(
        "{\n\t"
        ".reg .b32 low, high, before, after;\n\t"
        "mov.b64 {low, high}, %2;\n\t"
        "red.shared.add.u32 [%0 + 4], %1;\n\t"
        "atom.shared.add.u32 before, [%0 + 8], low;\n\t"
        "add.cc.u32 after, before, low;\n\t"
        "addc.u32 high, high, 0;\n\t"
        "red.shared.add.u32 [%0 + 12], high;\n\t"
        "}"
        :
        : "r"(record), "r"(count), "d"(__longlong_as_double(static_cast<long long>(sum)))
        : "memory");
  }
};

// And where they are not.
struct GlobalBins {
  Bin<uint64_t>* bins;
  const float* uppers;

  __device__ explicit GlobalBins(const SortedTables& t)
      : bins(static_cast<Bin<uint64_t>*>(t.bins)), uppers(t.upper) {}

  __device__ __forceinline__ float upper(int m) const { return uppers[m]; }

  // The count is signed, and so are both words: unsigned ones wrap around.
  __device__ __forceinline__ void add(int m, uint32_t wrapped, uint64_t sum) const {
    auto* bin = reinterpret_cast<unsigned long long*>(bins + m);
    const auto count = static_cast<uint64_t>(int64_t{static_cast<int32_t>(wrapped)});
    atomicAdd(bin, static_cast<unsigned long long>(sum - count * shifted_zero()));
    atomicAdd(bin + 1, static_cast<unsigned long long>(count));
  }
};

// A segment that a warp has picked out. Vectors of four logits that lie in it are summed up in registers and
// added once, for the whole warp: so negatives that crowd in one segment, as those of an untrained network
// do, do not wait for one another's additions.
template <typename Bins>
struct Held {
  int m = 0;
  float begin = 0, end = -kInfinity;  // nothing lies in it
  uint32_t count = 0;
  uint64_t sum = 0;

  // The segment of the first lane's score that has one. All lanes call.
  template <typename Search>
  __device__ __forceinline__ void pick(float s, float low, float high, const Bins& bins,
                                       const Search& search) {
    const unsigned lanes = __ballot_sync(0xffffffffu, s >= low);
    if (lanes == 0) return;
    m = search(fminf(__shfl_sync(0xffffffffu, s, __ffs(lanes) - 1), high));
    begin = bins.upper(m - 1);
    end = bins.upper(m);
  }

  // All lanes call, so that one of them adds for all.
  __device__ __forceinline__ void release(const Bins& bins) {
    if (!__any_sync(0xffffffffu, count)) return;
    count = warp_sum(count);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) bins.add(m, count, sum);
  }
};

template <typename T, typename Index, typename Bins>
__device__ __forceinline__ void count_narrow(const Input& input, const Plan& global_plan, const Index* starts,
                                             const Bins& bins, Status* status) {
  const Plan plan = global_plan;
  const auto search = [&](float s) {  // s from low to high
    const uint32_t cell = cell_of(s, plan.cell_scale, plan.cell_bias);
    const int m = fixed(starts[cell]);
    return s < bins.upper(m) ? m : next_segment(bins, starts, cell, m, s);
  };
  const auto position = [&](float s) { return shifted_position(plan.narrow, s); };
  const uint32_t one = fixed(1);
  const int64_t stride = fixed(gridDim.x * kTile);  // fits: where positions are narrow, n is below 2^40
  int nan = 0;
  const auto add = [&](float logit, bool taken_out) {
    if (logit != logit) nan += taken_out ? -1 : 1;
    if (!(logit >= plan.low)) return;
    const float s = fminf(logit, plan.high);
    bins.add(search(s), taken_out ? -one : one, taken_out ? -position(s) : position(s));
  };
  int64_t v = int64_t{blockIdx.x} * kTile + threadIdx.x;  // tiles are dealt out over all maps
#pragma unroll 1
  for (int map = 0; map < input.logits.count; ++map) {
    const Stretch<T> own(input, map, status);
    Held<Bins> held;
    if (v < own.vectors)  // any score will do: it tells where to look for the crowd
      held.pick(own.logit(4 * v), plan.low, plan.high, bins, search);
    for (; v < own.vectors; v += stride) {
      Vectors s;
      load_vectors<T>(own.logits, v, s);
      if (own.reads_labels) drop_ignored(own.labels, v, s);
#pragma unroll
      for (int u = 0; u < kVectors; ++u) {
        const float most = greatest(s[u]);
        if (most < plan.low) continue;
        if (!(most <= plan.high)) {
#pragma unroll
          for (int k = 0; k < 4; ++k) nan += s[u][k] != s[u][k];
          limit(plan.high, s[u]);
        }
        if (most < held.end && least(s[u]) >= held.begin) {
          held.count += 4;
#pragma unroll
          for (int k = 0; k < 4; ++k) held.sum += position(s[u][k]);
          continue;
        }
#pragma unroll
        for (int k = 0; k < 4; ++k)
          if (s[u][k] >= plan.low) bins.add(search(s[u][k]), one, position(s[u][k]));
      }
    }
    v -= own.vectors;
    held.release(bins);
    sweep_grid<kStreamThreads>(4 * own.vectors, own.size, [&](int64_t i) {
      if (!own.is_ignored(i)) add(own.logit(i), false);
    });
  }
  if (status->ignored && is_walked(input))
    walk_ignored<kStreamThreads>(input, [&](const Place& place, int64_t offset) {
      add(float_of(static_cast<const T*>(place.logits)[offset]), true);
    });
  if (nan)
    atomicAdd(reinterpret_cast<unsigned long long*>(&status->nan),
              static_cast<unsigned long long>(int64_t{nan}));
}

// count: bins[m] += (1, position) for every logit in segment m that is not below all knots, but what is ignored;
// build_tables has taken out the positives. Wide: for every negative.
//   logits  n; read once, four logits a load where pointers are aligned; what is ignored is read again, but for maps in
//           the order of their own labels
//   labels  read where some may be ignored
//   t       after build_tables
//   status  nan: 1 for each negative or positive that is NaN is added. Wide: raised
//   launch  any grid of fewer than 2^31 logits a block, kStreamThreads threads; kShared: t.shared_bytes() of
//           shared memory for the starts, the upper ends and the block's own bins, which are added to t.bins at
//           its end
//   exact   integer sums: the same bits for every grid, schedule and order of scores
template <typename T, bool kShared>
__global__ void __launch_bounds__(kStreamThreads, 2)
    count_sorted(Input input, SortedTables t, Status* status) {
  const Plan& plan = *t.plan;
  if (plan.kind == PositionKind::kNone) return;
  if (plan.kind == PositionKind::kWide) return count_wide(input, t, status);
  if constexpr (std::is_same_v<T, double>) {  // which is always wide
    return;
  } else if constexpr (!kShared) {
    count_narrow<T>(input, plan, static_cast<const uint32_t*>(t.starts), GlobalBins(t), status);
  } else {
    extern __shared__ __align__(16) char shared[];
    const int segments = static_cast<int>(2 * t.p + 1);
    auto* starts = reinterpret_cast<uint16_t*>(shared);
    const SharedBins own{reinterpret_cast<uint32_t*>(shared + fixed(t.starts_bytes()))};
    for (int m = threadIdx.x; m < segments; m += kStreamThreads) {
      uint32_t* record = own.records + SharedBins::kWords * m;
      record[0] = __float_as_uint(t.upper[m]);
      record[1] = record[2] = record[3] = 0;
    }
    copy_starts(t, plan.cells, starts);
    __syncthreads();
    count_narrow<T>(input, plan, starts, own, status);
    __syncthreads();
    for (int m = threadIdx.x; m < segments; m += kStreamThreads) {
      const uint32_t* record = own.records + SharedBins::kWords * m;
      if (record[1] | record[2] | record[3])  // a count of 0 may be one more and one less
        GlobalBins(t).add(m, record[1], record[2] | uint64_t{record[3]} << 32);
    }
  }
}

}  // namespace

void count(const Input& input, const Tables& tables, Status* status, cudaStream_t stream) {
  const auto choose = []<typename T, bool kShared>(std::type_identity<T>, std::bool_constant<kShared>) {
    return count_sorted<T, kShared>;
  };
  launch_stream("count_sorted", choose, input, tables, stream, status);
}

}  // namespace alrp::cuda::sorted

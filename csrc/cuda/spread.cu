// spread of the sorted form: one streaming pass over the logits, which writes their gradients.
#include "stages.h"
#include "stream.cuh"

namespace alrp::cuda::sorted {
namespace {

// Where scores are wide, or weights do not go through prefix sums, or every gradient is NaN: one logit at a
// time, tables in global memory.
__device__ __forceinline__ void spread_rare(const Input& input, const SortedTables& t, const Tables& tables,
                                            double scale) {
  const bool prefix_sums = t.plan->spreads && is_finite(scale);
  const double poison = *tables.poison;
  const Wide wide = t.wide(input.delta);
  const Step h = make_step(input.delta);
  sweep_grid<kStreamThreads>(0, input.n, [&](int64_t i) {
    const Mark mark = mark_of(input.labels, i);
    double value = 0;
    if (poison != 0) {
      if (mark != Mark::kIgnored) value = poison;
    } else if (mark == Mark::kNegative) {
      const double s = load(input, i);
      if (prefix_sums) {
        const int128 x = wide.of(s);
        if (const int m = segment_of(t, x)) {
          const int128 knot = static_cast<const int128*>(t.knots)[m - 1];
          value = (t.base[m] + t.slope[m] * static_cast<double>(x - knot)) * scale;
        }
      } else {
        for (int64_t k = 0; k < t.p; ++k) value += weighted(step(h, s, tables.score[k]), tables.share[k]);
        value *= scale;
      }
    }
    store_gradient(input, i, value);
  });
}

// Four gradients as they are stored, in few words: most vectors are zeros.
template <typename T>
using Packed = std::conditional_t<sizeof(T) == 4, ulonglong2, uint2>;

template <typename T>
__device__ __forceinline__ Packed<T> packed_of(const float (&value)[4]) {
  Packed<T> raw;
  if constexpr (std::is_same_v<T, float>) {
    asm("mov.b64 %0, {%1, %2};" : "=l"(raw.x) : "f"(value[0]), "f"(value[1]));
    asm("mov.b64 %0, {%1, %2};" : "=l"(raw.y) : "f"(value[2]), "f"(value[3]));
  } else if constexpr (std::is_same_v<T, __half>) {
    reinterpret_cast<__half2&>(raw.x) = __floats2half2_rn(value[0], value[1]);
    reinterpret_cast<__half2&>(raw.y) = __floats2half2_rn(value[2], value[3]);
  } else {
    reinterpret_cast<__nv_bfloat162&>(raw.x) = __floats2bfloat162_rn(value[0], value[1]);
    reinterpret_cast<__nv_bfloat162&>(raw.y) = __floats2bfloat162_rn(value[2], value[3]);
  }
  return raw;
}

// A segment: its upper end, its lower end, the gradient there and its slope.
__device__ __forceinline__ float4 record_of(const SortedTables& t, int m, double scale) {
  return {t.upper[m], m ? t.upper[m - 1] : 0.f, static_cast<float>(t.base[m] * scale),
          static_cast<float>(t.slope[m] * scale)};
}

// The tables where they are shared.
struct SharedSegments {
  const float4* records;

  __device__ __forceinline__ float upper(int m) const { return records[m].x; }
  __device__ __forceinline__ float4 at(int m) const { return records[m]; }
};

// And where they are not.
struct GlobalSegments {
  const SortedTables& t;
  double scale;

  __device__ __forceinline__ float upper(int m) const { return t.upper[m]; }
  __device__ __forceinline__ float4 at(int m) const { return record_of(t, m, scale); }
};

template <typename T, typename Index, typename Segments>
__device__ __forceinline__ void spread_narrow(const Input& input, const Plan& global_plan,
                                              const Index* starts, const Segments& segments,
                                              const Status* status) {
  const Plan plan = global_plan;
  const auto value_at = [&](float s) {  // s from low to high
    const auto in = [s](const float4& segment) { return fmaf(segment.w, s - segment.y, segment.z); };
    const uint32_t cell = cell_of(s, plan.cell_scale, plan.cell_bias);
    const int m = fixed(starts[cell]);
    const float4 segment = segments.at(m);
    if (s >= segment.x) [[unlikely]]
      return in(segments.at(next_segment(segments, starts, cell, m, s)));
    return in(segment);
  };
  const int64_t stride = fixed(gridDim.x * kTile);        // fits: where positions are narrow, n is below 2^40
  int64_t v = int64_t{blockIdx.x} * kTile + threadIdx.x;  // tiles are dealt out over all maps
#pragma unroll 1
  for (int map = 0; map < input.logits.count; ++map) {
    const Stretch<T> own(input, map, status);
    for (; v < own.vectors; v += stride) {
      Vectors s;
      load_vectors<T>(own.logits, v, s);
      if (own.reads_labels) drop_ignored(own.labels, v, s);
      auto* out = static_cast<Packed<T>*>(own.gradient) + v;
      asm("" : "+l"(out));  // kept: it would be computed again for every store
#pragma unroll
      for (int u = 0; u < kVectors; ++u) {
        const float most = greatest(s[u]);
        Packed<T> packed{0, 0};
        if (!(most < plan.low)) {
          if (!(most <= plan.high)) limit(plan.high, s[u]);  // NaN where it is ignored
          float value[4]{};
#pragma unroll
          for (int k = 0; k < 4; ++k)
            if (s[u][k] >= plan.low) value[k] = value_at(s[u][k]);
          packed = packed_of<T>(value);
        }
        out[u * kStreamThreads] = packed;  // one store for all lanes: neighbours share a sector
      }
    }
    v -= own.vectors;
  }
#pragma unroll 1
  for (int map = 0; map < input.logits.count; ++map) {  // apart, for registers
    const Stretch<T> own(input, map, status);
    sweep_grid<kStreamThreads>(4 * own.vectors, own.size, [&](int64_t i) {
      const float logit = own.logit(i);
      const bool matters = !own.is_ignored(i) && logit >= plan.low;
      store({own.gradient, input.logits.dtype}, i, matters ? value_at(fminf(logit, plan.high)) : 0.f);
    });
  }
}

// spread: gradient[j] = grad_cls * sum over i of share[i] H(s_j - score[i]) for negatives j, and what
// scatter_gradients overwrites for all others.
//   logits     n, read once, and labels where a Stretch reads them; gradients written once, everywhere
//   t, tables  after compute_losses or drive_spread
//   launch     any grid, kStreamThreads threads; kShared: t.shared_bytes() of shared memory for the starts and
//              the segments
template <typename T, bool kShared>
__global__ void __launch_bounds__(kStreamThreads, 2)
    spread_sorted(Input input, SortedTables t, const Status* status, Tables tables, Gradients gradients) {
  const Plan& plan = *t.plan;
  const double scale = load_scalar(gradients.grad_cls, gradients.incoming);
  // With shares below 1e15, and delta as build_tables bounds it, slopes fit float.
  constexpr double kMost = 1e15;
  if (plan.kind != PositionKind::kNarrow || *tables.poison != 0 || !plan.spreads || !(fabs(scale) < kMost))
    return spread_rare(input, t, tables, scale);
  if constexpr (std::is_same_v<T, double>) {  // which is always wide
    return;
  } else if constexpr (!kShared) {
    spread_narrow<T>(input, plan, static_cast<const uint32_t*>(t.starts), GlobalSegments{t, scale}, status);
  } else {
    extern __shared__ __align__(16) char shared[];
    const int segments = static_cast<int>(2 * t.p + 1);
    auto* starts = reinterpret_cast<uint16_t*>(shared);
    auto* records = reinterpret_cast<float4*>(shared + fixed(t.starts_bytes()));
    for (int m = threadIdx.x; m < segments; m += kStreamThreads) records[m] = record_of(t, m, scale);
    copy_starts(t, plan.cells, starts);
    __syncthreads();
    spread_narrow<T>(input, plan, starts, SharedSegments{records}, status);
  }
}

}  // namespace

void spread(const Input& input, const Status* status, const Tables& tables, const Gradients& gradients,
            cudaStream_t stream) {
  const auto choose = []<typename T, bool kShared>(std::type_identity<T>, std::bool_constant<kShared>) {
    return spread_sorted<T, kShared>;
  };
  launch_stream("spread_sorted", choose, input, tables, stream, status, tables, gradients);
}

}  // namespace alrp::cuda::sorted

// spread of the sorted form: one streaming pass over the logits, which writes their gradients.
#include "stages.h"
#include "stream.cuh"

namespace alrp::cuda::sorted {
namespace {

// Where scores are wide, or weights do not go through prefix sums, or every gradient is NaN: one logit at a
// time, tables in global memory.
__device__ __forceinline__ void spread_rare(const Array& logits, const Labels& labels, int64_t n,
                                            const SortedTables& t, const Plan& plan, double delta,
                                            const Tables& tables, double scale, const Array& gradient) {
  const bool prefix_sums = plan.spreads && is_finite(scale);
  const double poison = *tables.poison;
  const auto* knots = static_cast<const int128*>(t.knots);
  Wide wide = Wide::make(delta);
  wide.clusters = t.clusters;
  wide.count = plan.clusters;
  const Step h = make_step(delta);
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < n; i += int64_t{gridDim.x} * kBlock) {
    const Mark mark = mark_of(labels, i);
    double value = 0;
    if (poison != 0) {
      if (mark != Mark::kIgnored) value = poison;
    } else if (mark == Mark::kNegative) {
      const double s = load(logits, i);
      if (prefix_sums) {
        const int128 x = wide.of(s);
        const int64_t m = rank_in<int128>(knots, 2 * t.p, x, true);
        if (m) value = (t.base[m] + t.slope[m] * static_cast<double>(x - knots[m - 1])) * scale;
      } else {
        for (int64_t k = 0; k < t.p; ++k) value += weighted(step(h, s, tables.score[k]), tables.share[k]);
        value *= scale;
      }
    }
    store(gradient, i, value);
  }
}

// Four gradients as they are stored, in few words: most vectors are zeros.
template <typename T>
using Packed = std::conditional_t<sizeof(T) == 4, ulonglong2, uint2>;

template <typename T>
__device__ __forceinline__ Packed<T> pack(const float (&value)[4]) {
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
__device__ __forceinline__ float4 segment_of(const SortedTables& t, int m, double scale) {
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
  __device__ __forceinline__ float4 at(int m) const { return segment_of(t, m, scale); }
};

template <typename T, typename Index, typename Segments>
__device__ __forceinline__ void spread_narrow(const Array& logits, const Labels& labels, int64_t n,
                                              const Plan& global_plan, const Index* starts,
                                              const Segments& segments, const Array& gradient) {
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
  const int64_t vectors = tiled_vectors<T>(logits, labels, plan.reads_labels, gradient.data, n);
  const int64_t first = int64_t{blockIdx.x} * kTile + threadIdx.x;
  const int64_t stride = fixed(gridDim.x * kTile);  // fits: where positions are narrow, n is below 2^40
  for (int64_t v = first; v < vectors; v += stride) {
    Tile s;
    load_tile<T>(logits, v, s);
    auto* out = static_cast<Packed<T>*>(gradient.data) + v;
    if (plan.reads_labels) drop_others(labels, v, s);
#pragma unroll
    for (int u = 0; u < kVectors; ++u) {
      const float most = greatest(s[u]);
      Packed<T> packed{0, 0};
      if (!(most < plan.low)) {
        if (most > plan.high) limit(plan.high, s[u]);
        float value[4]{};
#pragma unroll
        for (int k = 0; k < 4; ++k)
          if (s[u][k] >= plan.low) value[k] = value_at(s[u][k]);
        packed = pack<T>(value);
      }
      out[u * kBlock] = packed;  // one store for all lanes: neighbours share a sector
    }
  }
  for (int64_t i = 4 * vectors + int64_t{blockIdx.x} * kBlock + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * kBlock) {
    const bool takes_part = !plan.reads_labels || mark_of(labels, i) == Mark::kNegative;
    const float s = fminf(static_cast<float>(load(logits, i)), plan.high);
    store(gradient, i, takes_part && s >= plan.low ? value_at(s) : 0.f);
  }
}

// spread: gradient[j] = grad_cls * sum over i of share[i] H(s_j - score[i]) for negatives j; 0 for what is
// ignored; what scatter_gradients overwrites for positives.
//   logits, labels  n, read once (labels: if plan.reads_labels); gradient written once, everywhere
//   t, tables       as compute_losses left them
//   launch          any grid, kBlock threads; kShared: t.shared_bytes() of shared memory for the starts and
//                   the segments
template <typename T, bool kShared>
__global__ void __launch_bounds__(kBlock, 2)
    spread_sorted(Array logits, Labels labels, int64_t n, double delta, SortedTables t, Tables tables,
                  const void* grad_cls, Dtype incoming, Array gradient) {
  const Plan& plan = *t.plan;
  const double scale = load_scalar(grad_cls, incoming);
  constexpr double kMost =
      1e15;  // with shares below 1e15, and delta as sort_positives bounds it, slopes fit float
  if (plan.form != Form::kNarrow || *tables.poison != 0 || !plan.spreads || !(fabs(scale) < kMost)) {
    spread_rare(logits, labels, n, t, plan, delta, tables, scale, gradient);
    return;
  }
  if constexpr (!std::is_same_v<T, double>) {  // which is always wide
    if constexpr (!kShared) {
      spread_narrow<T>(logits, labels, n, plan, static_cast<const uint32_t*>(t.starts),
                       GlobalSegments{t, scale}, gradient);
    } else {
      extern __shared__ __align__(16) char shared[];
      const int segments = static_cast<int>(2 * t.p + 1);
      auto* starts = reinterpret_cast<uint16_t*>(shared);
      auto* records = reinterpret_cast<float4*>(shared + fixed(t.starts_bytes()));
      for (int m = threadIdx.x; m < segments; m += kBlock) records[m] = segment_of(t, m, scale);
      copy_starts(t, plan.cells, starts);
      __syncthreads();
      spread_narrow<T>(logits, labels, n, plan, starts, SharedSegments{records}, gradient);
    }
  }
}

}  // namespace

void spread(const Input& input, const Tables& tables, const Gradients& gradients, cudaStream_t stream) {
  launch_stream(
      input, tables.device, stream, "spread_sorted",
      [](auto type, auto shared) { return &spread_sorted<typename decltype(type)::type, shared.value>; },
      tables, gradients.grad_cls, gradients.incoming, gradients.logits);
}

}  // namespace alrp::cuda::sorted

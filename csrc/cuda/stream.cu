// The two products of the sorted form, each one streaming pass over the logits: count and spread.
#include <algorithm>
#include <type_traits>

#include "array.cuh"
#include "backend.h"
#include "block.cuh"
#include "launch.h"
#include "sorted.cuh"

namespace alrp::cuda {
namespace {

constexpr int kRows = 0;             // instead of the bytes of a label: class indices, one a row
constexpr double kMagic = 0x1.8p52;  // added, it leaves a double's integer part in its low bits

// Four logits that begin at a multiple of four.
__device__ __forceinline__ float4 load_four(const Array& array, int64_t v) {
  if (array.dtype == Dtype::kFloat32) return static_cast<const float4*>(array.data)[v];
  const uint2 raw = static_cast<const uint2*>(array.data)[v];
  float2 low, high;
  if (array.dtype == Dtype::kFloat16) {
    low = __half22float2(reinterpret_cast<const __half2&>(raw.x));
    high = __half22float2(reinterpret_cast<const __half2&>(raw.y));
  } else {
    low = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(raw.x));
    high = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(raw.y));
  }
  return {low.x, low.y, high.x, high.y};
}

__device__ __forceinline__ void store_four(const Array& array, int64_t v, const float4& value) {
  if (array.dtype == Dtype::kFloat32) {
    static_cast<float4*>(array.data)[v] = value;
    return;
  }
  uint2 raw;
  if (array.dtype == Dtype::kFloat16) {
    reinterpret_cast<__half2&>(raw.x) = __floats2half2_rn(value.x, value.y);
    reinterpret_cast<__half2&>(raw.y) = __floats2half2_rn(value.z, value.w);
  } else {
    reinterpret_cast<__nv_bfloat162&>(raw.x) = __floats2bfloat162_rn(value.x, value.y);
    reinterpret_cast<__nv_bfloat162&>(raw.y) = __floats2bfloat162_rn(value.z, value.w);
  }
  static_cast<uint2*>(array.data)[v] = raw;
}

__device__ __forceinline__ bool is_negative(const Labels& labels, int64_t i) {
  return mark_of(labels, i) == Mark::kNegative;
}

// Four labels that begin at a multiple of four: bit k says that the k-th is no negative.
template <int kLabel>
__device__ __forceinline__ unsigned others_of_four(const Labels& labels, int64_t v, bool short_index) {
  unsigned others = 0;
  if constexpr (kLabel == kRows) {
    const int64_t i = 4 * v;
    const int64_t row =
        short_index ? static_cast<int64_t>(static_cast<uint32_t>(i) / static_cast<uint32_t>(labels.classes))
                    : i / labels.classes;
    const int64_t column = i - row * labels.classes;
    if (column + 3 < labels.classes) {
      const int64_t own = row_class(labels, label_bits(labels, row));
      if (own == kIgnoredRow || own == kInvalidRow) return 15;
      const int64_t k = own - column;
      return k >= 0 && k < 4 ? 1u << k : 0;
    }
    for (int k = 0; k < 4; ++k) others |= static_cast<unsigned>(!is_negative(labels, i + k)) << k;
  } else {
    uint64_t bits[4];
    if constexpr (kLabel == 1) {
      const uint32_t raw = static_cast<const uint32_t*>(labels.data)[v];
      if (raw == 0) return 0;
      for (int k = 0; k < 4; ++k) bits[k] = (raw >> 8 * k) & 0xff;
    } else if constexpr (kLabel == 2) {
      const uint2 raw = static_cast<const uint2*>(labels.data)[v];
      if ((raw.x | raw.y) == 0) return 0;
      bits[0] = raw.x & 0xffff, bits[1] = raw.x >> 16, bits[2] = raw.y & 0xffff, bits[3] = raw.y >> 16;
    } else if constexpr (kLabel == 4) {
      const uint4 raw = static_cast<const uint4*>(labels.data)[v];
      if ((raw.x | raw.y | raw.z | raw.w) == 0) return 0;
      bits[0] = raw.x, bits[1] = raw.y, bits[2] = raw.z, bits[3] = raw.w;
    } else {
      const ulonglong2 low = static_cast<const ulonglong2*>(labels.data)[2 * v];
      const ulonglong2 high = static_cast<const ulonglong2*>(labels.data)[2 * v + 1];
      if ((low.x | low.y | high.x | high.y) == 0) return 0;
      bits[0] = low.x, bits[1] = low.y, bits[2] = high.x, bits[3] = high.y;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k)
      others |= static_cast<unsigned>(flat_mark(labels, bits[k]) != Mark::kNegative) << k;
  }
  return others;
}

// Vectors of four that may be read and written whole: none where a pointer is not aligned.
__device__ __forceinline__ int64_t vectors_of(const Array& logits, const Labels& labels, const void* out,
                                              int64_t n) {
  const unsigned bytes = logits.dtype == Dtype::kFloat32 ? 16 : 8;
  const unsigned label_bytes = labels.classes ? 1 : min(16, 4 * labels.bytes);
  const bool aligned = reinterpret_cast<uintptr_t>(logits.data) % bytes == 0 &&
                       reinterpret_cast<uintptr_t>(out) % bytes == 0 &&
                       reinterpret_cast<uintptr_t>(labels.data) % label_bytes == 0;
  return aligned ? n / 4 : 0;
}

// The greater one; NaN if either is.
__device__ __forceinline__ float max_nan(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
#else
  return a != a || a > b ? a : b;
#endif
}

__device__ __forceinline__ float greatest(const float (&s)[4]) {
  return max_nan(max_nan(s[0], s[1]), max_nan(s[2], s[3]));
}

__device__ __forceinline__ void drop_others(unsigned others, float (&s)[4]) {
  if (others == 0) return;
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (others >> k & 1) s[k] = -__int_as_float(0x7f800000);
}

// The first knot from `m` on, among those of the cell, whose float lies above s.
template <typename Index, typename Upper>
__device__ __forceinline__ int next_segment(const Index* starts, const Upper& upper, uint32_t cell, int m,
                                            float s) {
  int end = starts[cell + 1];
  constexpr int kSteps = 4;
  for (int step = 0; step < kSteps; ++step, ++m)
    if (m == end || s < upper(m)) return m;
  while (m < end) {
    const int middle = (m + end) / 2;
    if (s < upper(middle))
      end = middle;
    else
      m = middle + 1;
  }
  return m;
}

// ---- Wide, and what is rare: one logit at a time, tables in global memory.

__device__ __forceinline__ void count_wide(const Array& logits, const Labels& labels, int64_t n,
                                           const SortedTables& t, const Wide& wide, Status* status) {
  const auto* knots = static_cast<const int128*>(t.knots);
  auto* bins = static_cast<Bin<uint128>*>(t.bins);
  bool nan = false;
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < n; i += int64_t{gridDim.x} * kBlock) {
    if (!is_negative(labels, i)) continue;
    const double s = load(logits, i);
    nan |= s != s;
    if (s != s) continue;
    const int128 x = wide.of(s);
    if (x < knots[0]) continue;
    auto* bin = reinterpret_cast<unsigned long long*>(&bins[rank_in<int128>(knots, 2 * t.p, x, true)]);
    const auto low = static_cast<uint64_t>(x);
    const uint64_t before = atomicAdd(bin, low);
    atomicAdd(bin + 1, static_cast<uint64_t>(x >> 64) + (before + low < low));  // with the carry
    atomicAdd(bin + 2, 1ULL);
  }
  if (nan) raise(&status->nan);
}

// Spread where scores are wide, or weights do not go through prefix sums, or every gradient is NaN.
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

// ---- Narrow

// A value that the compiler keeps in a register instead of computing it again for every logit.
__device__ __forceinline__ uint32_t fixed(size_t value) {
  auto result = static_cast<uint32_t>(value);
  asm volatile("" : "+r"(result));
  return result;
}

// The tables of count where they are shared: a record of five words for each segment, an odd number so that
// neighbours fall in different banks: upper end, count, low and high word of the sum.
struct SharedBins {
  uint32_t* records;
  static constexpr int kWords = 5;

  __device__ __forceinline__ float upper(int m) const { return __uint_as_float(records[kWords * m]); }

  __device__ __forceinline__ void add(int m, double shifted) const {
    const auto low = static_cast<uint32_t>(__double2loint(shifted));
    const auto high = static_cast<uint32_t>(__double2hiint(shifted));
    uint32_t* record = records + kWords * m;
    atomicAdd(record + 1, 1u);
    const uint32_t before = atomicAdd(record + 2, low);
    atomicAdd(record + 3, high + (before + low < low));
  }
};

// And where they are not.
struct GlobalBins {
  Bin<uint64_t>* bins;
  const float* uppers;

  __device__ __forceinline__ float upper(int m) const { return uppers[m]; }

  __device__ __forceinline__ void add(int m, double shifted) const {
    auto* bin = reinterpret_cast<unsigned long long*>(bins + m);
    atomicAdd(bin,
              static_cast<unsigned long long>(__double_as_longlong(shifted) - __double_as_longlong(kMagic)));
    atomicAdd(bin + 1, 1ULL);
  }
};

template <int kLabel, typename Index, typename Bins>
__device__ __forceinline__ void count_narrow(const Array& logits, const Labels& labels, int64_t n,
                                             const Plan& plan, const Index* starts, const Bins& bins,
                                             Status* status) {
  const float low = plan.low, high = plan.high, scale = plan.cell_scale, bias = plan.cell_bias;
  const uint32_t cell_first = plan.cell_first;
  const double units = plan.narrow.scale, offset = plan.narrow.offset + kMagic;
  const auto ends = [&bins](int m) { return bins.upper(m); };
  const auto tally = [&](float s) {
    s = fminf(s, high);
    const uint32_t cell = cell_of(s, scale, bias, cell_first);
    int m = starts[cell];
    if (s >= bins.upper(m)) m = next_segment(starts, ends, cell, m + 1, s);
    const double shifted = fma(static_cast<double>(s), units, offset);  // Narrow::of in the low bits
    bins.add(m, shifted);
  };
  const int64_t first = int64_t{blockIdx.x} * kBlock + threadIdx.x, stride = int64_t{gridDim.x} * kBlock;
  const int64_t vectors = vectors_of(logits, labels, nullptr, n);
  const bool short_index = n < int64_t{1} << 32;
  bool nan = false;
  for (int64_t v = first; v < vectors; v += stride) {
    const float4 four = load_four(logits, v);
    float s[4] = {four.x, four.y, four.z, four.w};
    drop_others(others_of_four<kLabel>(labels, v, short_index), s);
    const float most = greatest(s);
    if (most < low) continue;
    nan |= most != most;
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (s[k] >= low) tally(s[k]);
  }
  for (int64_t i = 4 * vectors + first; i < n; i += stride) {
    if (!is_negative(labels, i)) continue;
    const auto s = static_cast<float>(load(logits, i));
    nan |= s != s;
    if (s >= low) tally(s);
  }
  if (nan) raise(&status->nan);
}

// count: bins[m] += (1, position) for every negative in segment m that is not below all knots.
//   logits, labels  n; read once, four a lane where pointers are aligned
//   t               as prepare left it; bins zeroed
//   status          nan is raised if a negative is NaN
//   launch          any grid of fewer than 2^32 logits a block, kBlock threads; kShared: t.shared_bytes() of
//                   shared memory for the starts, the upper ends and the block's own bins, which are added
//                   to t.bins at its end
//   exact           integer sums: the same bits for every grid, schedule and order of scores
template <int kLabel, bool kShared>
__global__ void __launch_bounds__(kBlock, 2)
    count_sorted(Array logits, Labels labels, int64_t n, double delta, SortedTables t, Status* status) {
  const Plan& plan = *t.plan;
  if (plan.form == Form::kNone) return;
  if (plan.form == Form::kWide) {
    Wide wide = Wide::make(delta);
    wide.clusters = t.clusters;
    wide.count = plan.clusters;
    count_wide(logits, labels, n, t, wide, status);
    return;
  }
  auto* bins = static_cast<Bin<uint64_t>*>(t.bins);
  if constexpr (!kShared) {
    count_narrow<kLabel>(logits, labels, n, plan, static_cast<const uint32_t*>(t.starts),
                         GlobalBins{bins, t.upper}, status);
  } else {
    extern __shared__ __align__(16) char shared[];
    const int segments = static_cast<int>(2 * t.p + 1);
    auto* starts = reinterpret_cast<uint16_t*>(shared);
    const SharedBins own{reinterpret_cast<uint32_t*>(shared + fixed(t.starts_bytes()))};
    for (int m = threadIdx.x; m < segments; m += kBlock) {
      uint32_t* record = own.records + SharedBins::kWords * m;
      record[0] = __float_as_uint(t.upper[m]);
      record[1] = record[2] = record[3] = 0;
    }
    for (int c = threadIdx.x; c <= plan.cells; c += kBlock)
      starts[c] = static_cast<const uint16_t*>(t.starts)[c];
    __syncthreads();
    count_narrow<kLabel>(logits, labels, n, plan, starts, own, status);
    __syncthreads();
    for (int m = threadIdx.x; m < segments; m += kBlock) {
      const uint32_t* record = own.records + SharedBins::kWords * m;
      const uint64_t count = record[1];
      if (count == 0) continue;
      const uint64_t sum = record[2] | uint64_t{record[3]} << 32;
      auto* bin = reinterpret_cast<unsigned long long*>(bins + m);
      atomicAdd(bin, static_cast<unsigned long long>(sum - count * __double_as_longlong(kMagic)));
      atomicAdd(bin + 1, static_cast<unsigned long long>(count));
    }
  }
}

// A segment of spread: its upper end, its lower end, the gradient there and its slope per step.
__device__ __forceinline__ float4 segment_of(const SortedTables& t, int m, double scale) {
  return {t.upper[m], m ? t.upper[m - 1] : 0.f, static_cast<float>(t.base[m] * scale),
          static_cast<float>(t.slope[m] * scale)};
}

template <int kLabel, typename Index, typename Segments>
__device__ __forceinline__ void spread_narrow(const Array& logits, const Labels& labels, int64_t n,
                                              const Plan& plan, const Index* starts, const Segments& segments,
                                              const Array& gradient) {
  const float low = plan.low, high = plan.high, scale = plan.cell_scale, bias = plan.cell_bias;
  const float per_step = plan.per_step;
  const uint32_t cell_first = plan.cell_first;
  const auto ends = [&segments](int m) { return segments(m).x; };
  const auto value_at = [&](float s) {
    s = fminf(s, high);
    const uint32_t cell = cell_of(s, scale, bias, cell_first);
    const int m = starts[cell];
    float4 segment = segments(m);
    if (s >= segment.x) segment = segments(next_segment(starts, ends, cell, m + 1, s));
    return fmaf(segment.w, (s - segment.y) * per_step, segment.z);
  };
  const int64_t first = int64_t{blockIdx.x} * kBlock + threadIdx.x, stride = int64_t{gridDim.x} * kBlock;
  const int64_t vectors = vectors_of(logits, labels, gradient.data, n);
  const bool short_index = n < int64_t{1} << 32;
  for (int64_t v = first; v < vectors; v += stride) {
    const float4 four = load_four(logits, v);
    float s[4] = {four.x, four.y, four.z, four.w};
    float value[4] = {0, 0, 0, 0};
    drop_others(others_of_four<kLabel>(labels, v, short_index), s);
    if (greatest(s) >= low) {
#pragma unroll
      for (int k = 0; k < 4; ++k)
        if (s[k] >= low) value[k] = value_at(s[k]);
    }
    store_four(gradient, v, {value[0], value[1], value[2], value[3]});
  }
  for (int64_t i = 4 * vectors + first; i < n; i += stride) {
    float value = 0;
    if (is_negative(labels, i)) {
      const auto s = static_cast<float>(load(logits, i));
      if (s >= low) value = value_at(s);
    }
    store(gradient, i, value);
  }
}

// spread: gradient[j] = grad_cls * sum over i of share[i] H(s_j - score[i]) for negatives j; 0 for the rest.
//   logits, labels  n, read once; gradient written once, everywhere
//   t, tables       as finish left them
//   launch          any grid, kBlock threads; kShared: t.shared_bytes() of shared memory for the starts and
//                   the segments
template <int kLabel, bool kShared>
__global__ void __launch_bounds__(kBlock, 2)
    spread_sorted(Array logits, Labels labels, int64_t n, double delta, SortedTables t, Tables tables,
                  const void* grad_cls, Dtype incoming, Array gradient) {
  const Plan& plan = *t.plan;
  const double scale = load_scalar(grad_cls, incoming);
  constexpr double kMost = 1e15;  // with shares below 1e15 every product fits float
  if (plan.form != Form::kNarrow || *tables.poison != 0 || !plan.spreads || !(fabs(scale) < kMost)) {
    spread_rare(logits, labels, n, t, plan, delta, tables, scale, gradient);
    return;
  }
  if constexpr (!kShared) {
    const auto segments = [&t, scale](int m) { return segment_of(t, m, scale); };
    spread_narrow<kLabel>(logits, labels, n, plan, static_cast<const uint32_t*>(t.starts), segments,
                          gradient);
  } else {
    extern __shared__ __align__(16) char shared[];
    const int count = static_cast<int>(2 * t.p + 1);
    auto* starts = reinterpret_cast<uint16_t*>(shared);
    auto* records = reinterpret_cast<float4*>(shared + fixed(t.starts_bytes()));
    for (int m = threadIdx.x; m < count; m += kBlock) records[m] = segment_of(t, m, scale);
    for (int c = threadIdx.x; c <= plan.cells; c += kBlock)
      starts[c] = static_cast<const uint16_t*>(t.starts)[c];
    __syncthreads();
    const auto segments = [records](int m) { return records[m]; };
    spread_narrow<kLabel>(logits, labels, n, plan, starts, segments, gradient);
  }
}

// A grid that fills the device once, and no more threads than vectors.
template <typename Kernel>
unsigned grid_of(Kernel* kernel, size_t shared, int64_t n) {
  int device = 0, multiprocessors = 1, blocks = 1;
  check(cudaGetDevice(&device), "device");
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "device attribute");
  if (shared)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
          "shared memory");
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kBlock, shared), "occupancy");
  const int64_t most = std::max<int64_t>(int64_t{std::max(1, blocks)} * multiprocessors, n >> 31);
  return static_cast<unsigned>(std::clamp<int64_t>((n + 4 * kBlock - 1) / (4 * kBlock), 1, most));
}

template <typename F>
void with_labels(const Labels& labels, F&& run) {
  if (labels.classes)
    run(std::integral_constant<int, kRows>());
  else if (labels.bytes == 1)
    run(std::integral_constant<int, 1>());
  else if (labels.bytes == 2)
    run(std::integral_constant<int, 2>());
  else if (labels.bytes == 4)
    run(std::integral_constant<int, 4>());
  else
    run(std::integral_constant<int, 8>());
}

// Launches the instance of a kernel for these labels, with its tables in shared memory where they fit.
template <typename Choose, typename... Arguments>
void launch(const Input& input, const SortedTables& t, cudaStream_t stream, const char* name, Choose choose,
            const Arguments&... arguments) {
  const bool shared = fits_shared(t);
  with_labels(input.labels, [&](auto label) {
    auto* kernel = shared ? choose(label, std::true_type()) : choose(label, std::false_type());
    const size_t bytes = shared ? t.shared_bytes() : 0;
    kernel<<<grid_of(kernel, bytes, input.n), kBlock, bytes, stream>>>(input.logits, input.labels, input.n,
                                                                       input.delta, t, arguments...);
  });
  check_launch(name);
}

}  // namespace

void CudaBackend::sorted_count(const Input& input, const Tables& tables, Status* status) {
  launch(
      input, SortedTables(input, tables.device), stream_, "count_sorted",
      [](auto label, auto shared) { return &count_sorted<label.value, shared.value>; }, status);
}

void CudaBackend::sorted_spread(const Input& input, const Tables& tables, const Gradients& gradients) {
  launch(
      input, SortedTables(input, tables.device), stream_, "spread_sorted",
      [](auto label, auto shared) { return &spread_sorted<label.value, shared.value>; }, tables,
      gradients.grad_cls, gradients.incoming, gradients.logits);
}

}  // namespace alrp::cuda

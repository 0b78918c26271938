// The loops of narrow.h in AVX-512, for CPUs that have it; the same results, bit for bit.
#pragma once

#include "narrow.h"

#ifdef __x86_64__
#define ALRP_AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,popcnt")))

namespace alrp::cpu {

bool has_avx512();

bool select_avx512(const float* scores, const Mark* marks, int64_t size, const Range& range, Selected* out);

void add_to_bins_avx512(const float* score, const int32_t* segment, int64_t size, const Narrow& position,
                        Bin<Narrow::Sum>* bins);

void evaluate_avx512(const Record* records, float per_step, const float* score, const int32_t* segment,
                     int64_t size, bool stream, float* out);

void expand_avx512(const float* dense, const uint16_t* keep, int64_t size, bool stream, float* out);

void fence_avx512();

}  // namespace alrp::cpu
#endif

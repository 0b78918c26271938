// The loops of narrow.h in AVX-512.
#pragma once

#include "avx512.h"
#include "narrow.h"

#ifdef ALRP_AVX512
namespace alrp::cpu {

bool select_avx512(const float* scores, const Mark* marks, int64_t size, const Range& range, Selected* out);

void add_to_bins_avx512(const Selected& selected, const int32_t* segment, const Narrow& position,
                        Bin<Narrow::Sum>* bins);

void write_values_avx512(const Selected& selected, const float* value, int64_t size, bool stream, float* out);

void fence_avx512();

}  // namespace alrp::cpu
#endif

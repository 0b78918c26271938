// The step function H of sec. 2.1 of the aLRP paper: the only copy of this arithmetic, for the host and for
// devices.
#pragma once

#include <cfloat>
#include <cmath>

#if defined(__CUDACC__)
#define ALRP_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define ALRP_HD inline __attribute__((always_inline))
#else
#define ALRP_HD inline
#endif

namespace alrp {

// H(x) = clamp(x / (2 delta) + 1/2, 0, 1) for delta > 0; H(x) = 1 if x >= 0 else 0 for delta = 0.
struct Step {
  double delta;
  double
      scale;  // 1 / (2 delta), limited to finite numbers so that a tie (x = 0) stays 1/2 for every delta > 0
};

ALRP_HD Step make_step(double delta) {
  const double scale = delta > 0 ? 0.5 / delta : 0.0;
  return {delta, scale < DBL_MAX ? scale : DBL_MAX};
}

// H(s_j - s_i). Infinities of equal sign tie, as equal scores do. 0 where either score is NaN: kernels mark
// what takes no part by NaN, and look for NaN among the scores that do separately.
ALRP_HD double step(const Step& h, double s_j, double s_i) {
  if (h.delta == 0) return s_j >= s_i ? 1.0 : 0.0;
  const double x = s_j == s_i ? 0.0 : s_j - s_i;
  const double value = x * h.scale + 0.5;
  return value > 0 ? (value < 1 ? value : 1.0) : 0.0;  // false for NaN
}

// H to the power `skew` > 0, which makes the weights of shared errors steeper (> 1) or flatter (< 1). H is 0 or
// at least 2^-54, so a skew of at most 16 does not underflow.
ALRP_HD double skewed(double h, double skew) { return h > 0 ? pow(h, skew) : 0.0; }

// w H, where a pair with H = 0 contributes nothing even to an infinite or NaN weight.
ALRP_HD double weighted(double h, double weight) { return h > 0 ? h * weight : 0.0; }

}  // namespace alrp

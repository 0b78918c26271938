// Eight numbers at once, in as many vectors as a level of CPU takes for them: one of AVX2, two of NEON. What is
// done lane by lane is written once, in the compiler's own vectors; what moves lanes is each level's own. A file
// of loops includes this after it has defined ALRP_LEVEL (plain_loops.h), its functions' attribute, and
//   ALRP_VECTOR_BYTES   the size of its vectors
#include <cstdint>
#include <cstring>

#define ALRP_INLINE ALRP_LEVEL __attribute__((always_inline)) inline

namespace alrp::cpu {
namespace {

constexpr int64_t kEight = 8;

template <typename T>
struct Eight {
  static_assert(sizeof(T) == 4);
  typedef T Part __attribute__((vector_size(ALRP_VECTOR_BYTES)));
  typedef T InMemory __attribute__((vector_size(ALRP_VECTOR_BYTES), aligned(alignof(T)), may_alias));
  static constexpr int kParts = kEight * sizeof(T) / ALRP_VECTOR_BYTES;

  Part part[kParts];
};

using Floats = Eight<float>;
using Ints = Eight<int32_t>;  // of a comparison: all bits or none
using Bits = Eight<uint32_t>;

template <typename T>
ALRP_INLINE Eight<T> all(T number) {
  Eight<T> result;
  for (auto& part : result.part) part = number - typename Eight<T>::Part{};
  return result;
}

template <typename T>
ALRP_INLINE Eight<T> load(const T* from) {
  Eight<T> result;
  const typename Eight<T>::InMemory* parts = reinterpret_cast<const typename Eight<T>::InMemory*>(from);
  for (int p = 0; p < result.kParts; ++p) result.part[p] = parts[p];
  return result;
}

template <typename T>
ALRP_INLINE void store(T* to, const Eight<T>& numbers) {
  typename Eight<T>::InMemory* parts = reinterpret_cast<typename Eight<T>::InMemory*>(to);
  for (int p = 0; p < numbers.kParts; ++p) parts[p] = numbers.part[p];
}

// The same bits.
template <typename To, typename From>
ALRP_INLINE Eight<To> as(const Eight<From>& from) {
  Eight<To> result;
  for (int p = 0; p < result.kParts; ++p)
    result.part[p] = reinterpret_cast<typename Eight<To>::Part>(from.part[p]);
  return result;
}

// As static_cast does.
template <typename To, typename From>
ALRP_INLINE Eight<To> convert(const Eight<From>& from) {
  Eight<To> result;
  for (int p = 0; p < result.kParts; ++p)
    result.part[p] = __builtin_convertvector(from.part[p], typename Eight<To>::Part);
  return result;
}

#define ALRP_LANE_BY_LANE(Result, op)                                                \
  template <typename T>                                                              \
  ALRP_INLINE Eight<Result> operator op(const Eight<T>& a, const Eight<T>& b) {      \
    Eight<Result> result;                                                            \
    for (int p = 0; p < result.kParts; ++p) result.part[p] = a.part[p] op b.part[p]; \
    return result;                                                                   \
  }

ALRP_LANE_BY_LANE(T, +)
ALRP_LANE_BY_LANE(T, -)
ALRP_LANE_BY_LANE(T, *)
ALRP_LANE_BY_LANE(T, &)
ALRP_LANE_BY_LANE(T, |)
ALRP_LANE_BY_LANE(int32_t, ==)
ALRP_LANE_BY_LANE(int32_t, !=)
ALRP_LANE_BY_LANE(int32_t, >=)

#undef ALRP_LANE_BY_LANE

ALRP_INLINE Bits operator>>(Bits bits, int by) {
  for (auto& part : bits.part) part >>= by;
  return bits;
}

// a where the mask is set, else b.
template <typename T>
ALRP_INLINE Eight<T> choose(const Ints& mask, const Eight<T>& a, const Eight<T>& b) {
  Eight<T> result;
  for (int p = 0; p < result.kParts; ++p) result.part[p] = mask.part[p] ? a.part[p] : b.part[p];
  return result;
}

ALRP_INLINE int64_t sum(const Ints& of) {
  int32_t lanes[kEight];
  store(lanes, of);
  int64_t sum = 0;
  for (const int32_t lane : lanes) sum += lane;
  return sum;
}

// Eight numbers in memory, read two at a time.
class Indices {
 public:
  // Pair by pair: one copy of all would go through memory once more.
  ALRP_INLINE explicit Indices(const uint32_t* from) {
    for (int64_t k = 0; k < kEight / 2; ++k) std::memcpy(pairs_ + k, from + 2 * k, sizeof(uint64_t));
  }

  ALRP_INLINE uint32_t operator[](int64_t k) const {
    return static_cast<uint32_t>(k % 2 ? pairs_[k / 2] >> 32 : pairs_[k / 2]);
  }

 private:
  uint64_t pairs_[kEight / 2];
};

// What is added to both words of a bin at once.
typedef uint64_t Term __attribute__((vector_size(16)));

struct FourTerms {
  Term term[4];
};

}  // namespace
}  // namespace alrp::cpu

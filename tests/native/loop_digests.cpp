// Every loop of csrc/cpu/loops.h by every level that this CPU has, on numbers that are the same on any machine.
// Prints a line for each loop and case with a digest of what came out, which is to be that of any other CPU, and
// fails where two levels differ.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <iterator>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "loops.h"

using namespace alrp;
using namespace alrp::cpu;

extern "C" int run_block(int level, const double* positives, const double* shares, int p, double delta,
                         const float* scores, int size, int in_place, uint64_t* counts, uint64_t* sums,
                         float* gradient);

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// No multiples of a vector's lanes, and a whole block.
constexpr int64_t kSizes[] = {0, 1, 7, 9, 17, 31, 333, 1000, kBlockLogits};

// The standard's own distributions may differ from one library to another.
class Random {
 public:
  uint64_t bits() {  // a linear congruence, of whose state the high half is mixed into the low
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return state_ ^ (state_ >> 29);
  }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  double bell(double middle, double width) {
    return middle + width * 1.7 * (uniform() + uniform() + uniform() + uniform() - 2);
  }

 private:
  uint64_t state_ = 1;
};

using Digests = std::map<std::string, uint64_t>;

// Of the bits of numbers; all NaN are alike, for CPUs make them of different signs.
template <typename T>
void add(const std::vector<T>& numbers, uint64_t* digest) {
  for (const T& number : numbers) {
    uint64_t bits = 0x7ff;
    if (number == number)
      std::copy_n(reinterpret_cast<const char*>(&number), sizeof(T), reinterpret_cast<char*>(&bits));
    *digest = (std::rotl(*digest, 5) ^ bits) * 0x9e3779b97f4a7c15u;
  }
}

void digest_streaming(Level level, Digests* digests) {
  struct Case {
    const char* name;
    double middle, width;  // of the negatives
    int p;
    double spread;  // of the positives
  };
  constexpr Case kCases[] = {{"dense", -3, 1, 40, 1.5},    {"sparse", -9, 1, 40, 1.5},
                             {"crowded", 0, 1, 300, 1e-5}, {"ties", 0, 0.25, 30, 0.5},
                             {"one", 0.25, 1, 1, 0},       {"infinite", -2, 1, 9, 1}};
  for (const Case& of : kCases)
    for (const double delta : {1.0, 1e-3, 30.0}) {
      Random random;
      uint64_t digest = 0;
      for (const int64_t size : kSizes) {
        std::vector<double> positives(of.p), shares(of.p);
        std::vector<float> scores(size);
        const bool tie = of.name == std::string("ties"), infinite = of.name == std::string("infinite");
        const auto rounded = [&](double s) {
          return static_cast<float>(tie ? static_cast<int>(8 * s) / 8.0 : s);
        };
        for (double& s : positives) s = rounded(random.bell(0, of.spread));
        for (double& share : shares) share = random.uniform();
        for (float& s : scores) {
          s = rounded(random.bell(of.middle, of.width));
          if (infinite && random.uniform() < 0.3) s = random.uniform() < 0.5 ? kInfinity : -kInfinity;
        }
        std::sort(positives.begin(), positives.end());
        for (const int in_place : {0, 1}) {
          std::vector<uint64_t> counts(2 * of.p + 1), sums(2 * of.p + 1);
          std::vector<float> gradient(size);
          run_block(static_cast<int>(level), positives.data(), shares.data(), of.p, delta, scores.data(),
                    static_cast<int>(size), in_place, counts.data(), sums.data(), gradient.data());
          add(counts, &digest);
          add(sums, &digest);
          add(gradient, &digest);
        }
      }
      (*digests)[std::string("stream ") + of.name + " " + std::to_string(delta)] = digest;
    }
}

void digest_pairs(const Loops& loops, Digests* digests) {
  for (const double delta : {1.0, 0.0, 1e-3}) {
    Random random;
    uint64_t counted = 0, summed = 0, run = 0;
    const Step h = make_step(delta);
    for (const int64_t size : kSizes) {
      std::vector<double> columns(size), weights(size), rows(kRowTile), sums(kRowTile), column_sums(size);
      for (double& s : columns) s = static_cast<int>(random.bell(0, 800)) / 256.0;  // some tie
      for (double& w : weights) w = random.uniform();
      for (double& s : rows) s = static_cast<int>(random.bell(0, 800)) / 256.0;
      rows[3] = std::numeric_limits<double>::quiet_NaN();
      rows[5] = kInfinity;
      if (size > 2) columns[2] = kInfinity;
      loops.count_rows(columns.data(), size, rows.data(), h, sums.data());
      add(sums, &counted);
      loops.sum_rows(columns.data(), weights.data(), size, rows.data(), h, sums.data());
      add(sums, &summed);
      loops.sum_columns(columns.data(), size, rows.data(), rows.data(), kRowTile - 1, h, column_sums.data());
      add(column_sums, &run);
    }
    const std::string of = std::to_string(delta);
    (*digests)["count_rows " + of] = counted;
    (*digests)["sum_rows " + of] = summed;
    (*digests)["sum_columns " + of] = run;
  }
}

void digest_marks(const Loops& loops, Digests* digests) {
  struct Case {
    const char* name;
    Labels labels;  // without their data
  };
  constexpr Case kCases[] = {
      {"int8", {nullptr, 1, 1, 1, 0, 0, 0, 0}},
      {"bool", {nullptr, 1, 0, 1, 0, 0, 0, 0}},
      {"int16", {nullptr, 2, 1, 1, 0, 0, 0, 0}},
      {"float16", {nullptr, 2, 1, 1, 0x7bfe, 0x7c00, 0, 0}},
      {"int32", {nullptr, 4, 1, 1, 0, 0, 0, 0}},
      {"float32", {nullptr, 4, 1, 1, 0x7f7ffffe, 0x7f800000, 0, 0}},
      {"int64", {nullptr, 8, 1, 1, 0, 0, 0, 0}},
      {"float64", {nullptr, 8, 1, 1, 0x7feffffffffffffe, 0x7ff0000000000000, 0, 0}},
  };
  for (const Case& of : kCases) {
    Random random;
    uint64_t digest = 0;
    const int bits = 8 * of.labels.bytes;
    const uint64_t sign = uint64_t{1} << (bits - 1), all = sign | (sign - 1);
    const uint64_t notable[] = {0,
                                1,
                                2,
                                sign,
                                sign | 1,
                                all,
                                of.labels.infinity,
                                of.labels.infinity + 1,
                                of.labels.infinity | sign,
                                of.labels.infinity - 1};
    for (const int64_t size : kSizes) {
      std::vector<char> data((size + 1) * of.labels.bytes);
      for (int64_t k = 0; k <= size; ++k) {
        const uint64_t which = random.bits() >> 33;
        const uint64_t label = which % 4 ? notable[which / 4 % std::size(notable)] : random.bits();
        std::copy_n(reinterpret_cast<const char*>(&label), of.labels.bytes,
                    data.data() + k * of.labels.bytes);
      }
      Labels labels = of.labels;
      labels.data = data.data();
      std::vector<Mark> marks(size);
      loops.flat_marks(labels, 1, size, marks.data());
      add(marks, &digest);
    }
    (*digests)[std::string("marks ") + of.name] = digest;
  }
}

template <typename T>
void digest_halves(void (*widen)(const T*, int64_t, float*), void (*narrow)(const float*, int64_t, T*),
                   const std::string& name, Digests* digests) {
  constexpr int64_t kAll = 1 << 16;
  std::vector<T> halves(kAll);
  for (int64_t k = 0; k < kAll; ++k) halves[k] = T(static_cast<uint16_t>(k), T::from_bits());
  std::vector<float> floats(kAll + 1);
  uint64_t digest = 0;
  for (const int64_t size : {kAll, kAll - 3}) {
    widen(halves.data(), size, floats.data());
    add(floats, &digest);
  }
  (*digests)[name + " to float"] = digest;
  Random random;
  digest = 0;
  for (int64_t k = 0; k < kAll; k += 2) {  // each in two: of any bits, and halfway between two halves
    floats[k] = std::bit_cast<float>(static_cast<uint32_t>(random.bits() >> 32));
    floats[k + 1] = (static_cast<float>(halves[k]) + static_cast<float>(halves[k + 1])) / 2;
  }
  for (const int64_t size : {kAll, kAll - 3}) {
    narrow(floats.data(), size, halves.data());
    add(halves, &digest);
  }
  (*digests)["float to " + name] = digest;
}

Digests digests_of(Level level) {
  const Loops& loops = Loops::of(level);
  Digests digests;
  digest_streaming(level, &digests);
  digest_pairs(loops, &digests);
  digest_marks(loops, &digests);
  digest_halves<c10::Half>(loops.half_to_float, loops.float_to_half, "float16", &digests);
  digest_halves<c10::BFloat16>(loops.bfloat16_to_float, loops.float_to_bfloat16, "bfloat16", &digests);
  return digests;
}

}  // namespace

int main() {
  const Digests first = digests_of(Level::kDefault);
  for (const auto& [name, digest] : first)
    std::printf("%s: %016llx\n", name.c_str(), static_cast<unsigned long long>(digest));
  int differ = 0;
  for (int of = 1; of <= static_cast<int>(level()); ++of) {
    const auto level = static_cast<Level>(of);
    for (const auto& [name, digest] : digests_of(level))
      if (digest != first.at(name)) {
        std::fprintf(stderr, "%s of %s is not that of %s\n", name.c_str(), name_of(level),
                     name_of(Level::kDefault));
        ++differ;
      }
  }
  return differ != 0;
}

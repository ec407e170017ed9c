// What the drivers of the emulated kernels share: arrays, tolerances, comparisons. No libtorch, so that sanitizers see
// everything. A reference is plain loops in float64 over the inputs as they were rounded to the kernel's dtype.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/kernels/gated_position_attention/dropout.h"
#include "emulation.h"

namespace driver {

inline std::mt19937 random_bits;
inline int passed = 0, failed = 0;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// What a kernel is given: an allocation of exactly its size. All NaN until something is written.
template <typename T>
struct Array {
  explicit Array(size_t size) : size(size), data(static_cast<T*>(std::malloc(std::max<size_t>(1, size * sizeof(T))))) {
    std::memset(static_cast<void*>(data), 0xff, size * sizeof(T));
  }
  Array(const Array&) = delete;
  ~Array() { std::free(data); }

  void draw(double mean = 0) {
    std::normal_distribution<double> normal(mean);
    for (size_t i = 0; i < size; ++i) data[i] = static_cast<T>(normal(random_bits));
  }
  void zero() { std::fill_n(data, size, static_cast<T>(0)); }
  double operator[](size_t i) const { return static_cast<double>(data[i]); }

  size_t size;
  T* data;
};

// Of a dtype: the accumulator, its place in the enums of the args.h files, and how far a result may be off, relative to
// the largest number of the reference. A result of the dtype is four roundings off at most (`rounded`): its own, and
// that of an output which the gradients are made from. What stays in the accumulator and is made from nothing rounded
// is as near as float32 computes sums of some thousand products (`exact`).
template <typename T>
struct Type;
template <>
struct Type<float> {
  using Acc = float;
  static constexpr int index = 0;
  static constexpr double rounded = 1e-5, exact = 1e-5;
  static constexpr const char* name = "float32";
};
template <>
struct Type<c10::BFloat16> {
  using Acc = float;
  static constexpr int index = 1;
  static constexpr double rounded = 1.0 / 64, exact = 1e-5;
  static constexpr const char* name = "bfloat16";
};
template <>
struct Type<c10::Half> {
  using Acc = float;
  static constexpr int index = 2;
  static constexpr double rounded = 1.0 / 512, exact = 1e-5;
  static constexpr const char* name = "float16";
};
template <>
struct Type<double> {
  using Acc = double;
  static constexpr int index = 3;
  static constexpr double rounded = 1e-13, exact = 1e-13;
  static constexpr const char* name = "float64";
};

inline void check(bool good, const std::string& what) {
  ++(good ? passed : failed);
  if (!good) std::printf("FAILED %s\n", what.c_str());
}

template <typename T>
void compare(const std::string& what, const Array<T>& actual, const std::vector<double>& expected, double tolerance,
             double least = 1e-2) {
  double largest = least, furthest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::fabs(expected[i]));
    const double off = std::fabs(actual[i] - expected[i]);
    furthest = off >= 0 ? std::max(furthest, off) : kInfinity;  // not of NaN
  }
  char text[80];
  std::snprintf(text, sizeof text, ": off by %.2g of %.2g, allowed %.1g", furthest, largest, tolerance);
  check(furthest <= tolerance * largest, what + text);
}

inline voxtorch::kernels::AttentionDropout dropout_of(double probability) {
  const double words = 4294967296.0;
  return {1099511627779u, static_cast<uint32_t>(std::min(std::round(probability * words), words - 1)),
          probability < 1 ? 1 / (1 - probability) : 0};
}

// What dropout multiplies a probability by.
inline double factor_of(const voxtorch::kernels::AttentionDropout& dropout, int64_t head, int64_t query, int64_t key) {
  if (dropout.threshold == 0) return 1;
  return voxtorch::kernels::keeps(dropout, head, query, key) ? dropout.scale : 0;
}

void adamw_8bit(bool quick);
void anti_aliased_snake(bool quick);
void decode_attention(bool quick);
void few_rows_joined(bool quick);
void few_rows_tiles(bool quick);
void gated_position_attention(bool quick);
void rms_norm_residual(bool quick);
void rotary_append(bool quick);
void transducer_loss(bool quick);
void window_cross_attention(bool quick);

}  // namespace driver

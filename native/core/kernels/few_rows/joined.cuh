// What both kernels of few_rows_joined do: which outputs a thread has, what a weight is, what becomes of a sum.
// Internal to the files that include it; nothing of ATen.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "core/kernels/accumulate.cuh"
#include "core/kernels/few_rows/joined_args.h"

namespace voxtorch::kernels {
namespace {

// Outputs that are computed together: four of one projection, or two of a gate and the two that it multiplies.
constexpr int kGroup = 4;

// An output: a row of a projection's weight.
struct Slot {
  int projection;
  int64_t row;
  bool real;  // else it is the last row again
};

__device__ int64_t group_count(const Joined& args, int projection) {
  const int64_t held = args.gated ? kGroup / 2 : kGroup;
  return (args.projections[projection].out + held - 1) / held;
}

// Of a group after the last one too: none of its outputs is real.
__device__ Slot slot_of(const Joined& args, int64_t group, int i) {
  int projection = 0;
  int64_t row;
  if (args.gated) {
    projection = i / (kGroup / 2);
    row = group * (kGroup / 2) + i % (kGroup / 2);
  } else {
    while (projection + 1 < args.count && group >= group_count(args, projection)) {
      group -= group_count(args, projection);
      ++projection;
    }
    row = group * kGroup + i;
  }
  const int64_t out = args.projections[projection].out;
  return {projection, row < out ? row : out - 1, row < out};
}

// Weight `at` of a flat [out, in], without its scale where it is a code.
template <typename T, JoinedWeight Kind>
__device__ float code_at(const void* weight, int64_t at, const float* table) {
  if constexpr (Kind == JoinedWeight::kNf4) {
    const unsigned pair = static_cast<const uint8_t*>(weight)[at / 2];
    return table[at % 2 == 0 ? pair >> 4 : pair & 15];
  } else if constexpr (Kind == JoinedWeight::kInt8) {
    return static_cast<float>(static_cast<const int8_t*>(weight)[at]);
  } else {
    return static_cast<float>(static_cast<const T*>(weight)[at]);
  }
}

// Codes of NF4 in a word as it lies in memory: the earlier of two is the upper half of a byte.
__device__ float nf4_in(unsigned word, int i, const float* table) {
  return table[word >> (i / 2 * 8 + (i % 2 == 0 ? 4 : 0)) & 15];
}
__device__ float int8_in(unsigned word, int i) { return static_cast<float>(static_cast<int8_t>(word >> (i * 8))); }

// What is multiplied with a row's sum: NF4's scales are in it already.
template <JoinedWeight Kind>
__device__ float row_factor(const JoinedProjection& projection, int64_t row) {
  return Kind == JoinedWeight::kInt8 ? projection.factor * (projection.scale[row] / 127.0f) : projection.factor;
}

__device__ float apply(JoinedFunction function, float x) {
  switch (function) {
    case JoinedFunction::kSilu:
      return x / (1.0f + expf(-x));
    case JoinedFunction::kGelu:
      return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case JoinedFunction::kGeluTanh:
      return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case JoinedFunction::kQuickGelu:
      return x / (1.0f + expf(-1.702f * x));
    case JoinedFunction::kRelu:
      return x > 0.0f || x != x ? x : 0.0f;
    case JoinedFunction::kTanh:
      return tanhf(x);
    case JoinedFunction::kMish:
      return x * tanhf(x > 20.0f ? x : log1pf(expf(x)));
    default:
      return x;
  }
}

template <typename T>
__device__ float with_bias(const JoinedProjection& projection, int64_t row, float sum) {
  return projection.bias ? sum + static_cast<float>(static_cast<const T*>(projection.bias)[row]) : sum;
}

template <typename T>
__device__ void write(const Joined& args, int64_t row, int64_t column, float value) {
  const int64_t at = row * args.width + column;
  if (args.wide) {
    static_cast<float*>(args.output)[at] = value;
  } else {
    static_cast<T*>(args.output)[at] = narrow<T, float>(value);
  }
}

// Writes output i of the group for `row`: `sum(i)` is its product. Of a gated group i is 0 or 1.
template <typename T, typename Sum>
__device__ void finish(const Joined& args, int64_t group, int i, int64_t row, const Sum& sum) {
  const Slot slot = slot_of(args, group, i);
  if (!slot.real || row >= args.rows) return;
  const float value = apply(args.function, with_bias<T>(args.projections[slot.projection], slot.row, sum(i)));
  if (args.gated) {
    const int other = i + kGroup / 2;
    return write<T>(args, row, slot.row, value * with_bias<T>(args.projections[1], slot.row, sum(other)));
  }
  int64_t column = slot.row;
  for (int p = 0; p < slot.projection; ++p) column += args.projections[p].out;
  write<T>(args, row, column, value);
}

inline bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// Whether inputs and weights can be read 16 bytes at once, a scale for each.
inline bool reads_vectors(JoinedWeight weight, const Joined& args, int64_t element) {
  const int64_t held = weight == JoinedWeight::kNf4 ? 32 : weight == JoinedWeight::kInt8 ? 16 : 16 / element;
  bool fits = args.in % held == 0 && is_aligned(args.input);
  for (int p = 0; p < args.count; ++p) {
    fits = fits && is_aligned(args.projections[p].weight);
    fits = fits && (weight != JoinedWeight::kNf4 || args.projections[p].shift >= 5);
  }
  return fits;
}

inline int64_t group_total(const Joined& args) {
  if (args.gated) return (args.projections[0].out + kGroup / 2 - 1) / (kGroup / 2);
  int64_t total = 0;
  for (int p = 0; p < args.count; ++p) total += (args.projections[p].out + kGroup - 1) / kGroup;
  return total;
}

}  // namespace
}  // namespace voxtorch::kernels

// What the row kernels of a decoding step are given: raw pointers only, as in layer_norm_args.h.
#pragma once

#include <cstdint>

#include "core/kernels/builds.h"
#include "core/kernels/few_rows/args.h"
#include "core/kernels/few_rows/joined_args.h"

namespace voxtorch::kernels {

enum class StepType { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

// Of dense weights.
constexpr StepType step_type(FewRows::Weight type) {
  return type == FewRows::Weight::float32    ? StepType::kFloat32
         : type == FewRows::Weight::bfloat16 ? StepType::kBFloat16
                                             : StepType::kFloat16;
}

// Places of the cache that one chunk of attention sees.
constexpr int64_t kStepPlaces = 128;

// RMS norm of a row.
struct StepNorm {
  const float* input;
  const float* weight;
  float* output;
  int64_t dim;
  double eps;
};

// The queries of one row that share a key head, over some places of the cache.
struct StepAttention {
  const float* query;              // [group, dim], not turned yet
  const float *key, *value;        // the token's own [dim], not turned yet; null: another chunk sees itself
  const float *cos, *sin;          // [rotated / 2]
  const void *keys, *values;       // [capacity, dim]
  const bool* mask;                // of the places; null: all are seen
  int64_t group, dim, begin, end;  // places [begin, end), kStepPlaces at most
  int64_t rotated;                 // the first dimensions of a head, whose halves rotate; the others stay as they are
  float scale, cap;                // of scores; 0: no cap
  float* turned;                   // memory for [group + 1, dim]
  void *own_key, *own_value;       // [dim] for the cache, with `key` only
  float* output;                   // [group, dim + 2]: sums of values, the maximum, the sum of weights
};

// What several chunks have of one query head; their outputs lie `stride` floats apart.
struct StepPieces {
  const float* pieces;
  float* output;  // [dim]
  int64_t dim, count, stride;
};

// A row of weights in integers from -127 to 127.
struct StepRounding {
  const void* weight;
  int64_t in;
  int8_t* codes;
  float* scale;   // value = code * scale
  float* error;   // at least the length of what the codes leave out
  float* length;  // at least that of the row; a row with NaN or infinity has no finite ones
};

// Of products, between products - radius and products + radius, where radius = errors * error + lengths * length.
struct StepBounds {
  const float *products, *errors, *lengths;
  float error, length;
  int64_t count;
};

// One build of them, by StepType. All give the same within float32's rounding: products round once where the processor
// multiplies and adds at once.
struct StepRows {
  void (*norm)(const StepNorm& args);
  void (*attend[3])(const StepAttention& args);
  void (*widen[3])(const void* from, float* to, int64_t count);
  void (*join)(const StepPieces& args);
  // values = function(values) * factors
  void (*gate)(JoinedFunction function, float* values, const float* factors, int64_t count);
  // output[i] += scale * (weight[i, :] · input)
  void (*add_product)(const float* weight, const float* input, int64_t in, float scale, float* output, int64_t count);
  // The outputs [begin, end). For bfloat16 a row of inputs goes through pair_up.
  void (*dense[3])(const FewRows& args, int64_t begin, int64_t end);
  void (*pair_up)(const float* from, float* to, int64_t in);
  void (*round[3])(const StepRounding& args);
  // The largest lower bound; and the first place, from `from` on, whose upper bound is not below `floor`, else `count`.
  float (*floor)(const StepBounds& args);
  int64_t (*reaching)(const StepBounds& args, float floor, int64_t from);
};

extern const StepRows step_rows_default;
#if defined(__x86_64__)
extern const StepRows step_rows_avx2;
extern const StepRows step_rows_avx512;
#endif

}  // namespace voxtorch::kernels

// Arguments of a decoding step's kernels other than products: raw pointers only, as in few_rows/args.h.
#pragma once

#include <cstdint>

#include "core/kernels/builds.h"
#include "core/kernels/few_rows/args.h"

namespace voxtorch::kernels {

// softmax(scale * keys query) values: one query of one head over all its keys.
struct QueryAttention {
  const float* query;  // [dim]
  const void* keys;    // [count, dim], key_stride elements from one to the next; values likewise
  const void* values;
  int64_t key_stride, value_stride;
  FewRows::Weight type;  // of keys and values, dense
  int64_t count, dim;
  const float *own_key, *own_value;  // one more, [dim]; null: none
  float scale;
  float* scores;  // [count + 1]: memory to work in
  float* output;  // [dim]
};

// Most numbers of a head.
constexpr int64_t kMostQueryDim = 256;

struct StepKernels {
  void (*attention)(const QueryAttention& args);
  // x Φ(x) in place, of `count` numbers.
  void (*gelu)(float* x, int64_t count);
};

// Every build computes in the same order without fused multiply-adds, so all give the same bits.
extern const StepKernels step_kernels_default;
#if defined(__x86_64__)
extern const StepKernels step_kernels_avx2;
extern const StepKernels step_kernels_avx512;
#endif

}  // namespace voxtorch::kernels

// What the rows of attention's scores are given: raw pointers only, as in rms_norm_residual/args.h.
#pragma once

#include <cstdint>

#include "core/kernels/builds.h"

namespace voxtorch::kernels {

// Scores of some queries with some keys, scores [rows, columns], rows `stride` apart.
struct ScoreBlock {
  float* scores;
  int64_t rows, columns, stride;
  // Keys that the first row sees; every other row sees one more than the row before it if `is_causal`.
  int64_t seen;
  bool is_causal;
  const float* mask;  // to be added, or null
  int64_t mask_row, mask_column;
};

// A step of a softmax over blocks of keys: scores become weights, not yet divided by their sum, of rows whose largest
// score and sum so far are `largest` and `sum`, and what `output` [rows, width] has so far is scaled with them.
struct SoftmaxStep {
  ScoreBlock block;
  float *largest, *sum;
  float* output;
  int64_t width;
};

// The weights again from the logarithms of the sums, and the gradient of the scores from that of the weights: scores
// become weights, `grads` [rows, columns], as far apart, w * (grad - delta).
struct SoftmaxGradient {
  ScoreBlock block;
  float* grads;
  const float *log_sum, *delta;
};

#if defined(__x86_64__)
#define VOXTORCH_FLOAT_ATTENTION_BUILD(name)               \
  void float_attention_step_##name(const SoftmaxStep& at); \
  void float_attention_gradient_##name(const SoftmaxGradient& at)
VOXTORCH_FLOAT_ATTENTION_BUILD(avx2);
VOXTORCH_FLOAT_ATTENTION_BUILD(avx512);
#undef VOXTORCH_FLOAT_ATTENTION_BUILD
#endif

}  // namespace voxtorch::kernels

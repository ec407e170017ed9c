// What the row kernels of layer_norm are given: raw pointers only, as in rms_norm_residual_args.h.
#pragma once

#include <cstdint>

#include "core/kernels/builds.h"

namespace voxtorch::kernels {

// input and output [rows, dim], contiguous; weight and bias [dim] or null, all of one type; mean and rstd [rows] or
// null.
struct LayerNormForward {
  const void* input;
  const void* weight;
  const void* bias;
  void* output;
  bool is_bfloat16;  // else float32
  float* mean;
  float* rstd;
  int64_t dim;
  double eps;
};

// Every build sums in the same order without fused multiply-adds, so all give the same bits.
void layer_norm_rows_default(const LayerNormForward& args, int64_t begin, int64_t end);
#if defined(__x86_64__)
void layer_norm_rows_avx2(const LayerNormForward& args, int64_t begin, int64_t end);
void layer_norm_rows_avx512(const LayerNormForward& args, int64_t begin, int64_t end);
#endif

using LayerNormRows = void (*)(const LayerNormForward& args, int64_t begin, int64_t end);
// The build for this processor.
LayerNormRows layer_norm_rows();

}  // namespace voxtorch::kernels

// What the row kernels and the CUDA kernels of rms_norm_residual are given: raw pointers only. Files compiled with
// AVX2, AVX-512 or nvcc include this and nothing of ATen: an inline function of a shared header, compiled for AVX-512,
// could be the copy that the linker keeps for everyone.
#pragma once

#include <cstdint>

#include "core/kernels/builds.h"

namespace voxtorch::kernels {

enum class RowType { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kFloat64 = 3 };

// All [rows, dim], contiguous; weight [dim]; residual and weight may be null.
struct RmsNormForward {
  const void* input;
  const void* residual;
  const void* weight;
  void* hidden;
  void* output;
  int64_t rows;
  int64_t dim;
  double eps;
};

// All [rows, dim], contiguous; weight [dim]; grad_hidden_out (the gradient that reaches hidden from elsewhere) and
// weight may be null.
struct RmsNormBackward {
  const void* grad_output;
  const void* grad_hidden_out;
  const void* hidden;
  const void* weight;
  void* grad_input;
  int64_t rows;
  int64_t dim;
  double eps;
};

// One build of the vector rows, float32 and bfloat16, indexed by RowType. Rows [begin, end) are computed; weight_grad,
// [dim] or null, is added to. Every build sums in the same order without fused multiply-adds, so all give the same
// bits.
struct RmsNormRows {
  void (*forward[2])(const RmsNormForward& args, int64_t begin, int64_t end);
  void (*backward[2])(const RmsNormBackward& args, int64_t begin, int64_t end, float* weight_grad);
};

extern const RmsNormRows rms_norm_rows_default;
#if defined(__x86_64__)
extern const RmsNormRows rms_norm_rows_avx2;
extern const RmsNormRows rms_norm_rows_avx512;
#endif

// On the cudaStream_t `stream`; each returns a cudaError_t. The backward runs `blocks` blocks. `partials`, zeros
// [blocks, dim] of float (double for float64), takes each block's part of the weight's gradient; null when none is
// asked for.
int launch_rms_norm_forward(RowType type, const RmsNormForward& args, void* stream);
int launch_rms_norm_backward(RowType type, const RmsNormBackward& args, void* partials, int64_t blocks, void* stream);

}  // namespace voxtorch::kernels

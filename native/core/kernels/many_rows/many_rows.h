// x Wᵀ + b of many rows with weights in int8 or in GGUF's blocks, on the CPU. Both factors are integers, as in
// few_rows.h, with a step for each 16 inputs (args.h), and the weights are taken apart once for all rows. Processors do
// up to four times as many products of bytes as of floats.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "core/kernels/few_rows/args.h"

namespace voxtorch::kernels {

// Fewer rows are few_rows.h's, in which a row has the same bits whatever comes with it.
constexpr int64_t kFewestManyRows = 5;

// The functions of the build for this processor, for those who share out the outputs themselves: see args.h.
struct ManyRowsBuild {
  void (*outputs)(const FewRows& args, int64_t begin, int64_t end, float* sums);
  void (*prepare)(const float* input, int64_t rows, int64_t in, void* to);
};
const ManyRowsBuild& many_rows_build();

// input [..., in] of float32 or bfloat16, `weights` without what follows from it -> [..., out] of its dtype.
at::Tensor many_rows_linear(const at::Tensor& input, const FewRows& weights, const std::optional<at::Tensor>& bias);

}  // namespace voxtorch::kernels

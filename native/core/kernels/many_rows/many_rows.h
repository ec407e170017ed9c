// x Wᵀ + b of many rows with weights in int8 or in GGUF's blocks, on the CPU: the arithmetic of few_rows.h, in which
// both factors are integers, with the weights taken apart once for all rows. The processor's products of bytes do two
// to four times as many operations as those of floats.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "core/kernels/few_rows/args.h"

namespace voxtorch::kernels {

// Rows from which on this is the way: from 4 on it is faster, but a row has the same bits with up to 7 others.
constexpr int64_t kFewestManyRows = 9;

// input [..., in] of float32 or bfloat16, `weights` without what follows from it -> [..., out] of its dtype.
at::Tensor many_rows_linear(const at::Tensor& input, const FewRows& weights, const std::optional<at::Tensor>& bias);

}  // namespace voxtorch::kernels

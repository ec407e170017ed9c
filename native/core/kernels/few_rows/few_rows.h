// x Wᵀ + b for the few rows of a decoding step on the CPU. There the weights are read once for hardly any arithmetic,
// so the time is that of reading them: bfloat16 takes half of float32's, int8 a quarter.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace voxtorch::kernels {

// Whether few_rows_linear is the way for these, without gradients: input [..., in] of float32 or bfloat16.
bool are_few_rows(const at::Tensor& input, const at::Tensor& weight);

// weight [out, in] of the input's dtype, or int8 with `absmax` [out] (value = code * absmax / 127); bias [out].
at::Tensor few_rows_linear(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                           const std::optional<at::Tensor>& absmax = std::nullopt);

// The same with the weight [out, in] as quantize_nf4 packs it: codes, and float32 scales [ceil(out * in / block)]. Rows
// and blocks must be multiples of 64 long. Whole values are never made: half a byte is read for each.
bool are_few_rows_of_nf4(const at::Tensor& input, const at::Tensor& codes, int64_t out, int64_t in, int64_t block);
at::Tensor few_rows_nf4_linear(const at::Tensor& input, const at::Tensor& codes, const at::Tensor& scales, int64_t out,
                               int64_t block, const std::optional<at::Tensor>& bias);

}  // namespace voxtorch::kernels

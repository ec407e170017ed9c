// x Wᵀ + b for the few rows of a decoding step on the CPU. There the weights are read once for hardly any arithmetic,
// so the time is that of reading them: bfloat16 takes half of float32's, int8 a quarter. Weights in int8 and in GGUF's
// blocks are multiplied as integers, with the input in integers too: 32 inputs share a scale, their largest magnitude
// over 127, so that each is off by at most 0.4 % of the largest next to it.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "core/kernels/few_rows/args.h"

namespace voxtorch::kernels {

// The functions of the build for this processor (AVX-512 with VNNI, AVX-512, AVX2, plain), by raw pointers and without
// an allocation, for those who share out the outputs themselves.
using FewRowsOutputs = void (*)(const FewRows& args, int64_t begin, int64_t end);
FewRowsOutputs outputs_of();
#if defined(__x86_64__)
// Whether the builds for AVX-512 with VNNI are those for this processor.
bool has_integer_sums();
#endif
// The kind of dense weights, or int8, of this dtype.
FewRows::Weight weight_type_of(at::ScalarType type);
// Whether FewRows::input is not the floats themselves, and the bytes of what it is then.
bool needs_prepared_rows(FewRows::Weight type);
size_t prepared_rows_bytes(FewRows::Weight type, int64_t rows, int64_t in);
// input [rows, in] -> FewRows::input, at an address that floats may have: the same for int8 and all kinds of blocks.
void prepare_rows(FewRows::Weight type, const float* input, int64_t rows, int64_t in, void* to);

// Whether few_rows_linear is the way for these, without gradients: input [..., in] of float32, bfloat16 or float16.
bool are_few_rows(const at::Tensor& input, const at::Tensor& weight);
// Whether it is for more of them, of float32 or bfloat16 with an int8 weight, which many_rows.h multiplies.
bool are_many_rows(const at::Tensor& input, const at::Tensor& weight);

// weight [out, in] of the input's dtype, or int8 with `absmax` [out] (value = code * absmax / 127); bias [out].
at::Tensor few_rows_linear(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                           const std::optional<at::Tensor>& absmax = std::nullopt);

// The same with the weight [out, in] as quantize_nf4 packs it: codes, and float32 scales [ceil(out * in / block)]. Rows
// and blocks must be multiples of 64 long. Whole values are never made: half a byte is read for each.
bool are_few_rows_of_nf4(const at::Tensor& input, const at::Tensor& codes, int64_t out, int64_t in, int64_t block);
at::Tensor few_rows_nf4_linear(const at::Tensor& input, const at::Tensor& codes, const at::Tensor& scales, int64_t out,
                               int64_t block, const std::optional<at::Tensor>& bias);

// The same with GGUF's blocks, uint8 [out, bytes of a row]; any number of rows, of float32 or bfloat16.
bool takes_blocks(const at::Tensor& input, const at::Tensor& blocks, FewRows::Weight type);
at::Tensor blocks_linear(const at::Tensor& input, const at::Tensor& blocks, FewRows::Weight type,
                         const std::optional<at::Tensor>& bias);

}  // namespace voxtorch::kernels

// Products of float32 matrices on the CPU. MKL's reach half to four fifths of an AMD processor's rate, these 0.9 and
// more (docs/performance.md); on others MKL's are kept.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace voxtorch::kernels {

// Replaces ATen's kernels of `mm`, `addmm`, `bmm` and `baddbmm` on the CPU where this library's are faster: chosen
// once, by the processor's vendor. Called once in the process.
void use_float_products();

// The blocks for this processor; null if it has none of the instruction sets. Whether they are used: see above.
struct FloatProductBuild;
const FloatProductBuild* float_product_build();
bool uses_float_products();

// Whether x Wᵀ of input [..., in] and weight [out, in] is computed here. No gradients.
bool is_float_linear(const at::Tensor& input, const at::Tensor& weight);

// input [..., in], weight [out, in] with any strides, bias [out] -> [..., out], where is_float_linear. No gradients.
at::Tensor float_linear(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

// left [m, k] and right [k, n] of float32, bfloat16 or float16 with any strides, bias [n] -> [m, n] in float32, with
// sums in float32; on processors where has_widened_products. No gradients.
bool has_widened_products();
at::Tensor widened_mm(const at::Tensor& left, const at::Tensor& right, const std::optional<at::Tensor>& bias = {});
// The same of input [..., in] and weight [out, in] -> [rows, out].
at::Tensor widened_linear(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

}  // namespace voxtorch::kernels

// y = x Wᵀ + b on the CPU through oneDNN, which on dense float32 and bfloat16 is about a tenth faster than the BLAS
// that ATen's linear calls, and adds the bias and what follows while the block is in the cache; of float32 on AMD
// processors through float_product.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace voxtorch::kernels {

// What oneDNN can apply to a product, by its names: null for nothing.
struct FusedActivation {
  const char* attribute = nullptr;
  const char* algorithm = "";
};

// input [..., in], weight [out, in], bias [out] -> [..., out]. Everything that oneDNN does not do here is ATen's.
at::Tensor linear(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

// What these take in place of a frozen weight, or the weight itself.
at::Tensor for_products(const at::Tensor& weight, const at::Tensor& input, const std::optional<at::Tensor>& bias);

// The gradient of its input, [..., in], of that of its result, [..., out].
at::Tensor linear_input_gradient(const at::Tensor& grad, const at::Tensor& weight);

// The same with an activation, or with `residual` of the result's shape added: undefined where a gradient is needed or
// these arguments cannot be fused, and the caller takes the parts.
at::Tensor fused_linear(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                        FusedActivation activation);
at::Tensor fused_linear_add(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            const at::Tensor& residual);

}  // namespace voxtorch::kernels

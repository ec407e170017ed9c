// y = x Wᵀ + b of bfloat16 and float16 on processors that have no products of that dtype, where ATen takes five times
// as long as in float32. A panel of the weight at a time becomes float32 and is multiplied in float32, so that the
// weight is never in memory in float32 as a whole. Rounded once, at the end.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace voxtorch::kernels {

// False for bfloat16 and float16 on a processor where oneDNN does not multiply them.
bool has_products(c10::ScalarType dtype);

// Whether expanded_linear is the faster way for input [..., in] and weight [out, in].
bool is_expanded(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

at::Tensor expanded_linear(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

// The gradients of the input and of the weight, from grad [..., out].
at::Tensor expanded_input_gradient(const at::Tensor& grad, const at::Tensor& weight);
at::Tensor expanded_weight_gradient(const at::Tensor& grad, const at::Tensor& input);

}  // namespace voxtorch::kernels

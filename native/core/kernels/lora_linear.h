#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace voxtorch::kernels {

// As the operator of this name: input [..., in] -> [..., out].
at::Tensor lora_linear(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                       const at::Tensor& lora_A, const at::Tensor& lora_B, double scaling, double dropout,
                       bool training);

}  // namespace voxtorch::kernels

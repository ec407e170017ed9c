#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace voxtorch::kernels {

at::Tensor layer_norm(const at::Tensor& input, at::IntArrayRef normalized_shape,
                      const std::optional<at::Tensor>& weight, const std::optional<at::Tensor>& bias, double eps);

}  // namespace voxtorch::kernels

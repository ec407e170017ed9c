// conv(gelu(x)) over time, as speech encoders chain them on the waveform. There the activations are the largest of the
// network: only x is kept for backward, and both passes work on one piece of time after the other.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace voxtorch::kernels {

// input [batch, time, in], weight [out, in, kernel], bias [out] -> [batch, (time - kernel) / stride + 1, out], without
// padding.
at::Tensor gelu_conv1d(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                       int64_t stride);

}  // namespace voxtorch::kernels

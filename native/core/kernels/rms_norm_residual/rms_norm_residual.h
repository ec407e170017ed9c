// What the CPU, CUDA and meta implementations of rms_norm_residual share on ATen's side.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "core/kernels/rms_norm_residual/args.h"

namespace voxtorch::kernels {

using TensorPair = std::tuple<at::Tensor, at::Tensor>;
using OptionalTensor = std::optional<at::Tensor>;

inline bool present(const OptionalTensor& tensor) { return tensor.has_value() && tensor->defined(); }

// The tensor made contiguous, or an undefined one, whose data pointer is null.
at::Tensor contiguous_or_undefined(const OptionalTensor& tensor);

// Throw a sentence that names the argument and the shapes, dtypes or devices when an argument does not fit.
void check_rms_norm_forward(const at::Tensor& input, const OptionalTensor& residual, const OptionalTensor& weight,
                            double eps);
void check_rms_norm_backward(const at::Tensor& grad_output, const OptionalTensor& grad_residual_output,
                             const at::Tensor& hidden, const OptionalTensor& weight, double eps);

// Fill what both backends pass on; every tensor is contiguous.
RmsNormForward forward_args(const at::Tensor& input, const at::Tensor& residual, const at::Tensor& weight, double eps,
                            const at::Tensor& hidden, const at::Tensor& output);
RmsNormBackward backward_args(const at::Tensor& grad_output, const at::Tensor& grad_residual_output,
                              const at::Tensor& hidden, const at::Tensor& weight, double eps,
                              const at::Tensor& grad_input);

}  // namespace voxtorch::kernels

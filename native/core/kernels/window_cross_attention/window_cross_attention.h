// What the CPU, CUDA and meta implementations of window_cross_attention share on ATen's side.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "core/kernels/window_cross_attention/args.h"

namespace voxtorch::kernels {

struct WindowCall {
  at::Tensor query, key, value;
  int64_t window, stride;
  std::optional<at::Tensor> lengths;
  double dropout;
  int64_t seed;

  at::ScalarType accumulator() const;
  double scale() const;
  AttentionDropout dropped() const;
  // The same, as kernels can read it.
  WindowCall readable() const;
  WindowAttention args() const;
};

// Throw a sentence that names the argument and the shapes, dtypes or devices where one does not fit.
void check_window_attention(const char* op, const WindowCall& call);
void check_window_attention_backward(const WindowCall& call, const at::Tensor& grad_output,
                                     const at::Tensor& logsumexp);

using WindowOutput = std::tuple<at::Tensor, at::Tensor>;
using WindowGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
at::Tensor empty_window_logsumexp(const WindowCall& call);

// Forward and backward in plain operators, which copy the windows: for what a device has no kernel for.
WindowOutput composed_window_attention(const WindowCall& call);
WindowGradients composed_window_attention_backward(const at::Tensor& grad_output, const WindowCall& call);

}  // namespace voxtorch::kernels

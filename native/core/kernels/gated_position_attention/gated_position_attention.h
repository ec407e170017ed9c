// What the CPU, CUDA and meta implementations of gated_position_attention share on ATen's side.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "core/kernels/gated_position_attention/args.h"

namespace voxtorch::kernels {

// Which of the probabilities a seed drops.
AttentionDropout attention_dropout(double probability, int64_t seed);

// The arguments of one call; what they mean stands in gated_position_attention.cc.
struct GatedAttention {
  const at::Tensor& query;
  const at::Tensor& key;
  const at::Tensor& value;
  const at::Tensor& gate;
  const at::Tensor& relative;
  const std::optional<at::Tensor>& key_mask;
  double dropout;
  int64_t seed;
  std::optional<double> scale;
  int64_t free_keys;

  // What computes: float32, for float64 inputs float64.
  at::ScalarType accumulator() const;
  double score_scale() const;
  AttentionDropout dropped() const;
  // key_mask, contiguous, or an undefined tensor.
  at::Tensor mask() const;
};

using AttentionOutput = std::tuple<at::Tensor, at::Tensor>;  // output, logsumexp
// The gradients of query, key, value, gate and relative.
using AttentionGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// Throw a sentence that names the argument and the shapes, dtypes or devices when an argument does not fit.
void check_attention(const char* op, const GatedAttention& call);
void check_attention_backward(const GatedAttention& call, const at::Tensor& grad_output, const at::Tensor& output,
                              const at::Tensor& logsumexp);

// [batch, heads, time, dim], lying in memory as [batch, time, heads, dim], so that joining the heads copies nothing.
at::Tensor empty_attention_output(const GatedAttention& call);
// [batch, heads, time]
at::Tensor empty_logsumexp(const GatedAttention& call);

// Forward and backward in plain operators, which hold [batch, heads, time, time]: for what a device has no kernel for.
AttentionOutput composed_attention(const GatedAttention& call);
AttentionGradients composed_attention_backward(const at::Tensor& grad_output, const GatedAttention& call);

}  // namespace voxtorch::kernels

// A linear layer whose frozen weight is kept in 4 or 8 bits (QLoRA, https://arxiv.org/abs/2305.14314): each pass makes
// the values anew, in the input's dtype, and lets them go.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "core/kernels/few_rows/args.h"

namespace voxtorch::nn {

struct ActiveAdapters;

struct QuantizedWeight {
  using Type = kernels::FewRows::Weight;

  // nf4: uint8 [ceil(out * in / 2), 1]; int8: int8 [out, in]; GGUF's blocks: uint8 [out, bytes of a row]
  at::Tensor codes;
  // nf4: [ceil(out * in / block)], float32, or uint8 with nested scales; int8: float32 [out]; blocks: undefined
  at::Tensor absmax;
  int64_t out, in;
  int64_t block;  // of nf4; else 0
  // Of nf4 with double quantization, what dequantize_scales takes; undefined without.
  at::Tensor nested_absmax, nested_offset;
  Type type;

  at::Tensor values(at::ScalarType type) const;  // [out, in]
  // Those rows of it: int64 [...] -> [..., in]. Of blocks alone.
  at::Tensor rows(const at::Tensor& indices, at::ScalarType type) const;
  at::Tensor scales() const;  // of nf4: [ceil(out * in / block)]
};

// Throws where codes and scales do not make such a weight.
QuantizedWeight quantized_weight(const at::Tensor& codes, const std::optional<at::Tensor>& absmax,
                                 at::IntArrayRef shape, const std::string& scheme, int64_t block,
                                 const std::optional<at::Tensor>& nested_absmax,
                                 const std::optional<at::Tensor>& nested_offset);

// [..., in] -> [..., out]; gradients for the input and the bias. What is kept for backward is the codes.
at::Tensor quantized_linear(const at::Tensor& input, const QuantizedWeight& weight,
                            const std::optional<at::Tensor>& bias);

// As adapted_linear.
at::Tensor adapted_quantized_linear(const at::Tensor& input, const QuantizedWeight& weight,
                                    const std::optional<at::Tensor>& bias, const ActiveAdapters& adapters,
                                    bool training);

}  // namespace voxtorch::nn

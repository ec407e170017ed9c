// Parts of networks that have no parameters.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <string_view>

#include "core/kernels/linear.h"

namespace voxtorch::nn {

class Activation {
 public:
  using Function = at::Tensor (*)(const at::Tensor&);
  using InPlace = at::Tensor& (*)(at::Tensor&);
  Activation(Function function, InPlace in_place = nullptr, kernels::FusedActivation fused = {})
      : function_(function), in_place_(in_place), fused_(fused) {}

  at::Tensor operator()(const at::Tensor& input) const { return function_(input); }
  // A temporary's memory becomes the result's where no gradient will ask for it: fresh pages of the system cost more
  // than the computation does.
  at::Tensor operator()(at::Tensor&& input) const;
  // How a matrix product applies it to its result; null where it cannot.
  kernels::FusedActivation fused() const { return fused_; }
  bool is_exact_gelu() const { return fused_.algorithm == std::string_view("none"); }

 private:
  Function function_;
  InPlace in_place_;
  kernels::FusedActivation fused_;
};
// By the name in a published configuration ("gelu", "gelu_new", "relu", "silu", "quick_gelu", ...); throws for others.
Activation activation(const std::string& name);

// Only while training.
at::Tensor drop(const at::Tensor& input, double probability, bool training);

// A mask of 1 for real and 0 for padding, [batch, time] of any dtype, as a bool mask [batch, 1, 1, time] for attention.
// One for pairs of steps, [batch, 1 or heads, queries, keys], keeps its shape. Undefined in, undefined out.
at::Tensor attention_mask(const at::Tensor& mask);

// A mask for states on `device`: one of the CPU is sent there, unless it masks nothing, which makes it undefined.
at::Tensor mask_for(const at::Tensor& mask, c10::Device device);

// PyTorch's operator. On a processor without products of float16 it computes that in float32, in half the time. With a
// cap above 0 a score becomes cap * tanh(score / cap), as Gemma 2 has it, for which no fused kernel exists.
at::Tensor scaled_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const std::optional<at::Tensor>& mask, double dropout, bool is_causal = false,
                            double cap = 0);

struct Attended {
  at::Tensor output;   // [batch, heads, queries, dim]
  at::Tensor weights;  // [batch, heads, queries, keys], only where asked for
};
// softmax(q kᵀ / √dim + mask) v with queries [batch, heads, queries, dim] and keys, values [batch, heads, keys, dim].
// `mask` is bool (true: attend) or is added to the scores; undefined: none. `cap` as in scaled_attention.
Attended attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor& mask,
                double dropout, bool with_weights, double cap = 0);

// The same with a bias of relative positions that each query scales for itself, as WavLM has it: to the score of query
// i and key j comes gate[b, h, i] * relative[h, j - i + time - 1]. Queries, keys and values [batch, heads, time, dim];
// gate [batch, heads, time]; relative [heads, 2 * time - 1]; key_mask bool [batch, time] (true: attend), undefined:
// none.
Attended gated_attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor& gate,
                      const at::Tensor& relative, const at::Tensor& key_mask, double dropout, bool with_weights);

// From the default generator, so that manualSeed fixes what a kernel with a generator of its own drops.
int64_t draw_seed();

// [batch, time, heads * dim] -> [batch, heads, time, dim] and back.
at::Tensor split_heads(const at::Tensor& input, int64_t heads);
at::Tensor join_heads(const at::Tensor& input);

}  // namespace voxtorch::nn

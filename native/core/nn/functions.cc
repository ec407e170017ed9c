#include "core/nn/functions.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mish.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>

#include <cmath>
#include <limits>
#include <map>

namespace voxtorch::nn {

Activation activation(const std::string& name) {
  static const std::map<std::string, Activation> known = {
      {"gelu", [](const at::Tensor& x) { return at::gelu(x); }},
      {"gelu_new", [](const at::Tensor& x) { return at::gelu(x, "tanh"); }},
      {"gelu_fast", [](const at::Tensor& x) { return at::gelu(x, "tanh"); }},
      {"gelu_pytorch_tanh", [](const at::Tensor& x) { return at::gelu(x, "tanh"); }},
      {"quick_gelu", [](const at::Tensor& x) { return x * at::sigmoid(1.702 * x); }},
      {"relu", [](const at::Tensor& x) { return at::relu(x); }},
      {"silu", [](const at::Tensor& x) { return at::silu(x); }},
      {"swish", [](const at::Tensor& x) { return at::silu(x); }},
      {"tanh", [](const at::Tensor& x) { return at::tanh(x); }},
      {"mish", [](const at::Tensor& x) { return at::mish(x); }},
  };
  const auto found = known.find(name);
  TORCH_CHECK(found != known.end(), "the configuration names an unknown activation '", name, "'");
  return found->second;
}

at::Tensor drop(const at::Tensor& input, double probability, bool training) {
  return training && probability > 0 ? at::dropout(input, probability, true) : input;
}

at::Tensor attention_mask(const at::Tensor& mask) {
  if (!mask.defined()) return mask;
  return mask.to(at::kBool).unsqueeze(1).unsqueeze(1);
}

Attended attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor& mask,
                double probability, bool with_weights) {
  if (!with_weights) {
    const std::optional<at::Tensor> given = mask.defined() ? std::optional<at::Tensor>(mask) : std::nullopt;
    return {at::scaled_dot_product_attention(query, key, value, given, probability), at::Tensor()};
  }
  at::Tensor scores = at::matmul(query, key.transpose(-1, -2)) / std::sqrt(static_cast<double>(query.size(-1)));
  if (mask.defined()) {
    scores = mask.scalar_type() == at::kBool
                 ? scores.masked_fill(mask.logical_not(), -std::numeric_limits<double>::infinity())
                 : scores + mask;
  }
  const at::Tensor weights = at::softmax(scores, -1);
  return {at::matmul(drop(weights, probability, probability > 0), value), weights};
}

at::Tensor split_heads(const at::Tensor& input, int64_t heads) {
  return input.unflatten(-1, {heads, input.size(-1) / heads}).transpose(1, 2);
}

at::Tensor join_heads(const at::Tensor& input) { return input.transpose(1, 2).flatten(2); }

}  // namespace voxtorch::nn

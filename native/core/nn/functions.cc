#include "core/nn/functions.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mish.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>

#include <cmath>
#include <limits>
#include <map>

#include "core/kernels/expanded_linear.h"
#include "core/runtime/recording.h"
#include "core/runtime/transfers.h"

namespace voxtorch::nn {

at::Tensor Activation::operator()(at::Tensor&& input) const {
  const bool recorded = at::GradMode::is_enabled() && input.requires_grad();
  if (in_place_ == nullptr || recorded || input.use_count() > 1 || input.storage().use_count() > 1) {
    return function_(input);
  }
  in_place_(input);
  return std::move(input);
}

Activation activation(const std::string& name) {
  static const Activation gelu([](const at::Tensor& x) { return at::gelu(x); },
                               [](at::Tensor& x) -> at::Tensor& { return at::gelu_(x); }, {"gelu", "none"});
  static const Activation gelu_tanh([](const at::Tensor& x) { return at::gelu(x, "tanh"); },
                                    [](at::Tensor& x) -> at::Tensor& { return at::gelu_(x, "tanh"); },
                                    {"gelu", "tanh"});
  static const Activation silu(at::silu, at::silu_);
  static const std::map<std::string, Activation> known = {
      {"gelu", gelu},
      {"gelu_new", gelu_tanh},
      {"gelu_fast", gelu_tanh},
      {"gelu_pytorch_tanh", gelu_tanh},
      {"quick_gelu", Activation([](const at::Tensor& x) { return x * at::sigmoid(1.702 * x); })},
      {"relu", Activation(at::relu, at::relu_, {"relu", ""})},
      {"silu", silu},
      {"swish", silu},
      {"tanh", Activation(at::tanh, at::tanh_)},
      {"mish", Activation(at::mish)},
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
  return mask.dim() == 4 ? mask.to(at::kBool) : mask.to(at::kBool).unsqueeze(1).unsqueeze(1);
}

at::Tensor mask_for(const at::Tensor& mask, c10::Device device) {
  if (!mask.defined() || mask.device() == device) return mask;
  if (mask.is_cpu() && mask.all().item<bool>()) return {};
  return upload(mask, device);
}

namespace {

at::Tensor masked(const at::Tensor& scores, const at::Tensor& mask) {
  if (!mask.defined()) return scores;
  return mask.scalar_type() == at::kBool
             ? scores.masked_fill(mask.logical_not(), -std::numeric_limits<double>::infinity())
             : scores + mask;
}

Attended explicit_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const at::Tensor& mask, double probability, double cap) {
  const double scale = 1 / std::sqrt(static_cast<double>(query.size(-1)));
  at::Tensor scores = at::matmul(query, key.transpose(-1, -2)) * scale;
  if (cap > 0) scores = at::tanh(scores / cap) * cap;
  const at::Tensor weights = at::softmax(masked(scores, mask), -1);
  return {at::matmul(nn::drop(weights, probability, probability > 0), value), weights};
}

}  // namespace

at::Tensor scaled_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const std::optional<at::Tensor>& mask, double dropout, bool is_causal, double cap) {
  if (cap > 0) {
    const at::Tensor seen = is_causal ? at::ones({query.size(2), key.size(2)}, query.options().dtype(at::kBool)).tril()
                                      : mask.value_or(at::Tensor());
    return explicit_attention(query, key, value, seen, dropout, cap).output;
  }
  const auto run = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const std::optional<at::Tensor>& m) {
    return at::scaled_dot_product_attention(q, k, v, m, dropout, is_causal);
  };
  if (!query.is_cpu() || query.scalar_type() != at::kHalf || kernels::has_products(at::kHalf))
    return run(query, key, value, mask);
  const auto wide = [](const at::Tensor& x) { return x.to(at::kFloat); };
  const bool adds = mask.has_value() && mask->scalar_type() == at::kHalf;
  return run(wide(query), wide(key), wide(value), adds ? std::optional(wide(*mask)) : mask).to(at::kHalf);
}

Attended attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor& mask,
                double probability, bool with_weights, double cap) {
  if (with_weights) return explicit_attention(query, key, value, mask, probability, cap);
  const std::optional<at::Tensor> given = mask.defined() ? std::optional<at::Tensor>(mask) : std::nullopt;
  return {scaled_attention(query, key, value, given, probability, false, cap), at::Tensor()};
}

int64_t draw_seed() {
  return at::randint(std::numeric_limits<int64_t>::max(), {1}, at::TensorOptions().dtype(at::kLong)).item<int64_t>();
}

Attended gated_attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const at::Tensor& gate,
                      const at::Tensor& relative, const at::Tensor& key_mask, double probability, bool with_weights) {
  if (!with_weights) {
    const std::optional<at::Tensor> mask =
        key_mask.defined() ? std::optional<at::Tensor>(key_mask.to(at::kBool)) : std::nullopt;
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("voxtorch::gated_position_attention", "")
                               .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                 const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                                                 double, int64_t, std::optional<double>, int64_t)>();
    return {op.call(query, key, value, gate, relative, mask, probability, probability > 0 ? draw_seed() : 0,
                    std::nullopt, 0),
            at::Tensor()};
  }
  const int64_t time = query.size(2);
  // Row r of the windows has the biases of query time - 1 - r.
  const at::Tensor table = relative.unfold(1, time, 1).flip(1);  // [heads, queries, keys]
  at::Tensor bias = gate.unsqueeze(-1) * table;                  // [batch, heads, queries, keys]
  if (key_mask.defined()) {
    bias = bias.masked_fill(attention_mask(key_mask).logical_not(), -std::numeric_limits<double>::infinity());
  }
  return attend(query, key, value, bias, probability, with_weights);
}

at::Tensor split_heads(const at::Tensor& input, int64_t heads) {
  return input.unflatten(-1, {heads, input.size(-1) / heads}).transpose(1, 2);
}

at::Tensor join_heads(const at::Tensor& input) { return input.transpose(1, 2).flatten(2); }

}  // namespace voxtorch::nn

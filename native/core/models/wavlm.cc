#include "core/models/wavlm.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/where.h>
#include <torch/library.h>

#include <cmath>

#include "core/nn/embedding.h"
#include "core/nn/linear.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Embedding;
using nn::Linear;

namespace {

// How distances fall into buckets (T5's, https://arxiv.org/abs/1910.10683): half of the buckets are for keys that come
// later. In each half the first half has one bucket per distance, and the rest grow logarithmically up to `farthest`.
struct DistanceBuckets {
  int64_t count, farthest;

  // Of the distances key - query from 1 - time to time - 1, [2 * time - 1].
  Tensor of(int64_t time, c10::Device device) const {
    const int64_t half = count / 2, exact = half / 2;
    const Tensor offset = at::arange(1 - time, time, at::TensorOptions().dtype(at::kLong).device(device));
    const Tensor distance = offset.abs();
    const Tensor position = at::log(distance.to(at::kFloat) / exact) /
                            std::log(static_cast<double>(farthest) / static_cast<double>(exact)) * (half - exact);
    const Tensor far = (position + exact).to(at::kLong).clamp_max(half - 1);
    return offset.gt(0).to(at::kLong) * half + at::where(distance < exact, distance, far);
  }
};

class WavLMAttention : public SpeechAttention {
 public:
  WavLMAttention(const ModuleOptions& options, const SpeechConfig& c, const DistanceBuckets& buckets, bool has_bias)
      : SpeechAttention("WavLMAttention", options),
        gate_scale(parameter("gru_rel_pos_const", {1, c.heads, 1, 1}, init::ones())),
        key(*child<Linear>("k_proj", c.dim, c.dim, true, c.std)),
        value(*child<Linear>("v_proj", c.dim, c.dim, true, c.std)),
        query(*child<Linear>("q_proj", c.dim, c.dim, true, c.std)),
        output(*child<Linear>("out_proj", c.dim, c.dim, true, c.std)),
        gates(*child<Linear>("gru_rel_pos_linear", c.dim / c.heads, 2 * kGateWidth, true, c.std)),
        biases(has_bias ? child<Embedding>("rel_attn_embed", buckets.count, c.heads, -1, c.std) : nullptr),
        buckets(buckets),
        heads(c.heads),
        dropout(c.attention_dropout) {}

  Tensor relative_bias(int64_t time) const override {
    if (biases == nullptr) return {};
    return biases->forward(buckets.of(time, biases->weight.device())).transpose(0, 1).contiguous();
  }

  nn::Attended forward(const Tensor& x, const Tensor& mask, const Tensor& relative, bool with_weights) const override {
    const auto project = [&](const Linear& layer) { return nn::split_heads(layer.forward(x), heads); };
    nn::Attended result = nn::gated_attend(project(query), project(key), project(value), gate(x), relative, mask,
                                           training() ? dropout : 0, with_weights);
    result.output = output.forward(nn::join_heads(result.output));
    return result;
  }

  Tensor forward_each(const Tensor& x, const nn::Segments& segments, const Tensor& relative) const override {
    const auto project = [&](const Linear& layer) { return nn::split_heads(layer.forward(x), heads); };
    return output.forward(nn::gated_attend_each(segments, project(query), project(key), project(value), gate(x),
                                                relative, training() ? dropout : 0));
  }

 private:
  // How much of the bias each query takes, from the head's part of the layer's input.
  Tensor gate(const Tensor& x) const {
    const Tensor both = at::sigmoid(sum_of_gates(x.unflatten(-1, {heads, -1})));  // [batch, time, heads, 2]
    const Tensor update = both.select(-1, 0), reset = both.select(-1, 1);
    return (update * (reset * gate_scale.flatten() - 1) + 2).transpose(1, 2);  // [batch, heads, time]
  }

  // Each gate is the sum of kGateWidth projections, which is the projection with the sum of their weights.
  Tensor sum_of_gates(const Tensor& x) const {
    if (gates.adapted()) return gates.forward(x).unflatten(-1, {2, kGateWidth}).sum(-1);
    const Tensor weight = gates.weight.unflatten(0, {2, kGateWidth}).sum(1);
    const Tensor bias = gates.bias.unflatten(0, {2, kGateWidth}).sum(1);
    return at::linear(x, weight, bias);
  }

  static constexpr int64_t kGateWidth = 4;
  const Tensor gate_scale;  // [1, heads, 1, 1]
  Linear &key, &value, &query, &output, &gates;
  Embedding* const biases;  // [buckets, heads], the first layer's only
  const DistanceBuckets buckets;
  const int64_t heads;
  const double dropout;
};

MakeAttention attention_maker(const Config& config) {
  const DistanceBuckets buckets{config.integer("num_buckets", 320), config.integer("max_bucket_distance", 800)};
  TORCH_CHECK(buckets.count >= 4 && buckets.farthest > buckets.count / 4,
              "num_buckets must be at least 4 and max_bucket_distance above a quarter of it, got ", buckets.count,
              " and ", buckets.farthest);
  return [buckets](const ModuleOptions& options, const SpeechConfig& c, int64_t layer) {
    return c10::make_intrusive<WavLMAttention>(options, c, buckets, layer == 0);
  };
}

}  // namespace

WavLM::WavLM(const ModuleOptions& options, const Config& config) : WavLM(options, config, SpeechConfig(config)) {}

WavLM::WavLM(const ModuleOptions& options, const Config& config, const SpeechConfig& speech)
    : SpeechEncoder("WavLM", options, speech, attention_maker(config)) {}

namespace {

SpeechResult forward(const c10::intrusive_ptr<Module>& self, const Tensor& values, const std::optional<Tensor>& mask,
                     const std::optional<Tensor>& time_mask, bool hidden_states, bool attentions) {
  return speech_forward(network<WavLM>(self, "wavlm_forward"), values, mask, time_mask, hidden_states, attentions);
}

const RegisteredModule registered("wavlm", make_module<WavLM>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "wavlm_forward(__torch__.torch.classes.voxtorch.Module self, Tensor input_values, Tensor? attention_mask=None, "
      "*, "
      "Tensor? mask_time_indices=None, bool output_hidden_states=False, bool output_attentions=False) -> (Tensor "
      "last_hidden_state, Tensor extract_features, Tensor[] hidden_states, Tensor[] attentions)",
      forward);
}

}  // namespace voxtorch::models

#include "core/models/wavlm.h"

#include <torch/library.h>

#include "core/nn/embedding.h"
#include "core/nn/linear.h"
#include "core/nn/relative_positions.h"

namespace voxtorch::models {

using at::Tensor;
using nn::DistanceBuckets;
using nn::Embedding;
using nn::Linear;

namespace {

class WavLMAttention : public SpeechAttention {
 public:
  WavLMAttention(const ModuleOptions& options, const SpeechConfig& c, const DistanceBuckets& buckets, bool has_bias)
      : SpeechAttention("WavLMAttention", options),
        gate_scale(parameter("gru_rel_pos_const", {1, c.heads, 1, 1}, init::ones())),
        key(*child<Linear>("k_proj", c.dim, c.dim, true, c.std)),
        value(*child<Linear>("v_proj", c.dim, c.dim, true, c.std)),
        query(*child<Linear>("q_proj", c.dim, c.dim, true, c.std)),
        output(*child<Linear>("out_proj", c.dim, c.dim, true, c.std)),
        gates(*child<Linear>("gru_rel_pos_linear", c.dim / c.heads, 2 * nn::kGateWidth, true, c.std)),
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
  Tensor gate(const Tensor& x) const { return nn::relative_gate(x.unflatten(-1, {heads, -1}), gates, gate_scale); }

  const Tensor gate_scale;  // [1, heads, 1, 1]
  Linear &key, &value, &query, &output, &gates;
  Embedding* const biases;  // [buckets, heads], the first layer's only
  const DistanceBuckets buckets;
  const int64_t heads;
  const double dropout;
};

MakeAttention attention_maker(const Config& config) {
  const DistanceBuckets buckets{config.integer("num_buckets", 320), config.integer("max_bucket_distance", 800)};
  buckets.check("num_buckets", "max_bucket_distance");
  return [buckets](const ModuleOptions& options, const SpeechConfig& c, int64_t layer) {
    return c10::make_intrusive<WavLMAttention>(options, c, buckets, layer == 0);
  };
}

}  // namespace

WavLM::WavLM(const ModuleOptions& options, const Config& config) : WavLM(options, config, SpeechConfig(config)) {}

WavLM::WavLM(const ModuleOptions& options, const Config& config, const SpeechConfig& speech)
    : SpeechEncoder("WavLM", options, speech, attention_maker(config)) {
  TORCH_CHECK(speech.attention_adapter == 0, "adapter_attn_dim asks for adapter layers, which WavLM does not have");
}

namespace {

SpeechResult forward_wavlm(const c10::intrusive_ptr<Module>& self, const Tensor& values,
                           const std::optional<Tensor>& mask, const std::optional<Tensor>& time_mask,
                           bool hidden_states, bool attentions) {
  return speech_forward(network<WavLM>(self, "wavlm_forward"), values, mask, time_mask, hidden_states, attentions);
}

const RegisteredModule registered_wavlm("wavlm", make_module<WavLM>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "wavlm_forward(__torch__.torch.classes.voxtorch.Module self, Tensor input_values, Tensor? attention_mask=None, "
      "*, "
      "Tensor? mask_time_indices=None, bool output_hidden_states=False, bool output_attentions=False) -> (Tensor "
      "last_hidden_state, Tensor extract_features, Tensor[] hidden_states, Tensor[] attentions)",
      forward_wavlm);
}

}  // namespace voxtorch::models

// The audio encoder of GLM-ASR (https://huggingface.co/zai-org/GLM-ASR-Nano-2512) with the names of transformers'
// GlmAsrEncoder: Whisper's convolutions, and layers whose queries and keys are rotated by the position.
#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>
#include <torch/library.h>

#include "core/models/whisper.h"
#include "core/nn/rotary.h"

namespace voxtorch::models {
namespace {

using at::Tensor;
using nn::Conv1d;
using nn::LayerNorm;
using nn::Linear;

struct GlmAsrConfig {
  explicit GlmAsrConfig(const Config& config)
      : dim(config.integer("hidden_size", 1280)),
        intermediate(config.integer("intermediate_size", 5120)),
        layers(config.integer("num_hidden_layers", 32)),
        heads(config.integer("num_attention_heads", 20)),
        mels(config.integer("num_mel_bins", 128)),
        activation(config.text("hidden_act", "gelu")),
        std(config.number("initializer_range", 0.02)),
        attention_dropout(config.probability("attention_dropout", 0)) {
    TORCH_CHECK(heads > 0 && dim > 0 && dim % heads == 0, "hidden_size ", dim,
                " is not divisible by num_attention_heads ", heads);
    TORCH_CHECK(layers >= 0 && intermediate > 0 && mels > 0,
                "num_hidden_layers must not be negative, and intermediate_size and num_mel_bins must be positive, got ",
                layers, ", ", intermediate, " and ", mels);
  }
  int64_t dim, intermediate, layers, heads, mels;
  std::string activation;
  double std, attention_dropout;
};

class GlmAsrAttention : public Block {
 public:
  GlmAsrAttention(const ModuleOptions& options, const GlmAsrConfig& c)
      : Block("GlmAsrAttention", options),
        query(*child<Linear>("q_proj", c.dim, c.dim, true, c.std)),
        key(*child<Linear>("k_proj", c.dim, c.dim, false, c.std)),
        value(*child<Linear>("v_proj", c.dim, c.dim, true, c.std)),
        output(*child<Linear>("o_proj", c.dim, c.dim, true, c.std)),
        heads(c.heads),
        dropout(c.attention_dropout) {}

  nn::Attended forward(const Tensor& x, const Tensor& mask, const nn::Rotation& rotation, bool with_weights) const {
    const auto project = [&](const Linear& layer) { return nn::split_heads(layer.forward(x), heads); };
    nn::Attended result = nn::attend(rotation.apply(project(query)), rotation.apply(project(key)), project(value),
                                     nn::attention_mask(mask), training() ? dropout : 0, with_weights);
    result.output = watched(x, output.forward(nn::join_heads(result.output)));
    return result;
  }

 private:
  Linear &query, &key, &value, &output;
  const int64_t heads;
  const double dropout;
};

class GlmAsrLayer : public nn::EncoderLayer {
 public:
  GlmAsrLayer(const ModuleOptions& options, const GlmAsrConfig& c)
      : EncoderLayer("GlmAsrEncoderLayer", options),
        attention(*child<GlmAsrAttention>("self_attn", c)),
        feed_forward(*child<nn::FeedForward>("mlp", shape(c))),
        attention_norm(*child<LayerNorm>("input_layernorm", c.dim, 1e-5)),
        norm(*child<LayerNorm>("post_attention_layernorm", c.dim, 1e-5)) {}

  // relative: cosines and sines [2, 1, 1, time, rotated / 2]
  nn::Attended forward(const Tensor& input, const Tensor& mask, const std::optional<nn::Segments>& segments,
                       const Tensor& relative, bool with_weights) const override {
    TORCH_INTERNAL_ASSERT(!segments);
    const nn::Rotation rotation{relative.select(0, 0), relative.select(0, 1)};
    nn::Attended result = attention.forward(attention_norm.forward(input), mask, rotation, with_weights);
    const Tensor x = input + result.output;
    result.output = watched(input, feed_forward.forward(norm.forward(x), x));
    return result;
  }

 private:
  static nn::FeedForwardShape shape(const GlmAsrConfig& c) {
    return {
        .dim = c.dim, .hidden = c.intermediate, .activation = c.activation, .std = c.std, .up = "fc1", .down = "fc2"};
  }

  GlmAsrAttention& attention;
  nn::FeedForward& feed_forward;
  LayerNorm &attention_norm, &norm;
};

struct GlmAsrEncoded {
  Tensor last_hidden_state;           // [batch, frames, dim], after the last norm
  Tensor mask;                        // bool [batch, frames]; undefined: all frames are valid
  std::vector<Tensor> hidden_states;  // the first layer's input and each layer's output, the last one after the norm
  std::vector<Tensor> attentions;     // [batch, heads, frames, frames] per layer
};

class GlmAsrEncoder : public Block, public nn::Checkpointing {
 public:
  GlmAsrEncoder(const ModuleOptions& options, const Config& settings)
      : Block("GlmAsrEncoder", options),
        config(settings),
        rotary(settings, config.dim / config.heads, settings.integer("max_position_embeddings", 1500),
               /*partial=*/true),
        conv1(*child<Conv1d>("conv1", shape(config.mels, 1))),
        conv2(*child<Conv1d>("conv2", shape(config.dim, 2))),
        layers(*child<ModuleList<nn::EncoderLayer>>("layers")),
        norm(*child<LayerNorm>("norm", config.dim, 1e-5)) {
    for (int64_t i = 0; i < config.layers; ++i) layers.append(c10::make_intrusive<GlmAsrLayer>(options, config));
  }

  // features [batch, mels, steps]; mask [batch, steps], 1 for what is there, on the left of the padding: a row's result
  // is then that of its valid steps alone. Undefined: all.
  GlmAsrEncoded forward(const Tensor& features, const Tensor& given, bool hidden_states, bool attentions) const {
    check_mel_features(features, given, config.mels);
    const Tensor mask = nn::mask_for(given.defined() ? given.to(at::kBool) : Tensor(), features.device());
    GlmAsrEncoded result;
    const Tensor x = convolved_mel(conv1, conv2, features.to(conv1.weight.scalar_type()), mask);
    if (mask.defined()) result.mask = mask.slice(1, 0, mask.size(1), 2).contiguous();
    const Tensor positions = at::arange(x.size(1), at::TensorOptions().dtype(at::kLong).device(x.device()));
    const nn::Rotation rotation = rotary.at(positions.unsqueeze(0), x.scalar_type());
    nn::EncoderStates states = nn::run_layers(
        layers, *this, x, {result.mask, {}, at::stack({rotation.cos, rotation.sin}), hidden_states, attentions});
    result.last_hidden_state = watched(features, norm.forward(states.last));
    result.hidden_states = std::move(states.hidden_states);
    if (hidden_states) result.hidden_states.back() = result.last_hidden_state;
    result.attentions = std::move(states.attentions);
    return result;
  }

 private:
  nn::Conv1dShape shape(int64_t in, int64_t stride) const {
    return {.in = in, .out = config.dim, .kernel = 3, .stride = stride, .zero_bias = true, .std = config.std};
  }

  const GlmAsrConfig config;
  const nn::Rotary rotary;
  Conv1d &conv1, &conv2;
  ModuleList<nn::EncoderLayer>& layers;
  LayerNorm& norm;
};

const RegisteredModule registered_glmasr("glmasr_encoder", make_module<GlmAsrEncoder>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "glmasr_encoder_forward(__torch__.torch.classes.voxtorch.Module self, Tensor input_features, Tensor? "
      "attention_mask=None, *, bool output_hidden_states=False, bool output_attentions=False) -> (Tensor "
      "last_hidden_state, Tensor attention_mask, Tensor[] hidden_states, Tensor[] attentions)",
      [](const c10::intrusive_ptr<Module>& self, const Tensor& features, const std::optional<Tensor>& mask,
         bool hidden_states, bool attentions) -> std::tuple<Tensor, Tensor, std::vector<Tensor>, std::vector<Tensor>> {
        GlmAsrEncoded result = network<GlmAsrEncoder>(self, "glmasr_encoder_forward")
                                   .forward(features, mask.value_or(Tensor()), hidden_states, attentions);
        return {std::move(result.last_hidden_state), std::move(result.mask), std::move(result.hidden_states),
                std::move(result.attentions)};
      });
}

}  // namespace voxtorch::models

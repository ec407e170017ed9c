#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <limits>

#include "core/models/whisper.h"
#include "core/runtime/recording.h"
#include "core/runtime/transfers.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Conv1d;
using nn::LayerNorm;
using nn::Linear;

WhisperAttention::WhisperAttention(const ModuleOptions& options, int64_t dim, int64_t heads, double dropout, double std,
                                   bool key_bias)
    : Block("WhisperAttention", options),
      key(*child<Linear>("k_proj", dim, dim, key_bias, std)),
      value(*child<Linear>("v_proj", dim, dim, true, std)),
      query(*child<Linear>("q_proj", dim, dim, true, std)),
      output(*child<Linear>("out_proj", dim, dim, true, std)),
      heads(heads),
      dropout(dropout) {}

KeysValues WhisperAttention::keys_values(const Tensor& source) const {
  return {nn::split_heads(key.forward(source), heads), nn::split_heads(value.forward(source), heads)};
}

nn::Attended WhisperAttention::attend(const Tensor& x, const KeysValues& keys, const Tensor& mask, bool causal,
                                      bool with_weights) const {
  const auto& [k, v] = keys;
  Tensor q = nn::split_heads(query.forward(x), heads);  // [rows, heads, time, head_dim]
  const double drop = training() ? dropout : 0;
  const int64_t rows = q.size(0), batch = k.size(0), time = q.size(2), dim = q.size(3);
  if (rows == batch && causal) {
    return {nn::join_heads(nn::scaled_attention(q, k, v, std::nullopt, drop, true)), Tensor()};
  }
  // The rows that share keys are adjacent in time: no key is copied.
  const int64_t group = rows / batch;
  if (group > 1) q = q.view({batch, group, heads, time, dim}).transpose(1, 2).reshape({batch, heads, -1, dim});
  nn::Attended result = nn::attend(q, k, v, mask, drop, with_weights);
  if (group > 1) {
    const auto apart = [&](const Tensor& joined) {
      return joined.view({batch, heads, group, time, joined.size(-1)}).transpose(1, 2).flatten(0, 1);
    };
    result.output = apart(result.output);
    if (with_weights) result.weights = apart(result.weights);
  }
  result.output = nn::join_heads(result.output);
  return result;
}

Tensor WhisperAttention::attend_each(const Tensor& x, const nn::Segments& segments) const {
  const auto [k, v] = keys_values(x);
  return nn::attend_each(segments, nn::split_heads(query.forward(x), heads), k, v, training() ? dropout : 0);
}

Tensor WhisperAttention::add(const Tensor& x, const Tensor& attended, const Tensor& residual, double drop) const {
  if (!hooked()) return add_output(output, attended, residual, drop, training());
  return residual + nn::drop(watched(x, output.forward(attended)), drop, training());
}

Tensor WhisperAttention::weights(const Tensor& x, const Tensor& keys, const std::vector<int64_t>& chosen) const {
  TORCH_CHECK(x.size(0) == keys.size(0), "there must be a row of audio for each row of tokens, got ", keys.size(0),
              " and ", x.size(0));
  const Tensor places = upload(chosen, {static_cast<int64_t>(chosen.size())}, x.device());
  const Tensor q = nn::split_heads(query.forward(x), heads).index_select(1, places).to(at::kFloat);
  const Tensor k = keys.index_select(1, places).to(at::kFloat);
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(3)));
  return at::softmax(at::matmul(q * scale, k.transpose(2, 3)), -1);
}

WhisperFeedForward::WhisperFeedForward(const WhisperConfig& c, Linear& up, Linear& down)
    : up(up),
      down(down),
      activation(nn::activation(c.activation)),
      activation_dropout(c.activation_dropout),
      dropout(c.dropout) {}

Tensor WhisperFeedForward::forward(const Tensor& x, const Tensor& residual, bool training) const {
  return add_output(down, nn::drop(up.forward(x, activation), activation_dropout, training), residual, dropout,
                    training);
}

Tensor add_output(const Linear& layer, const Tensor& x, const Tensor& residual, double dropout, bool training) {
  if (!training || dropout == 0) return layer.forward_add(x, residual);
  return residual + nn::drop(layer.forward(x), dropout, training);
}

bool is_dropped(double probability, bool training) {
  return training && probability > 0 && at::rand({1}).item<double>() < probability;
}

Tensor sinusoids(int64_t length, int64_t dim, c10::Device device) {
  const int64_t half = dim / 2;
  const auto floats = at::TensorOptions().dtype(at::kDouble).device(device);
  const double step = std::log(10000.0) / static_cast<double>(std::max<int64_t>(half - 1, 1));
  const Tensor rates = at::exp(at::arange(half, floats) * -step);
  const Tensor angles = at::arange(length, floats).unsqueeze(1) * rates.unsqueeze(0);
  return at::cat({angles.sin(), angles.cos()}, 1);
}

namespace {

// The sinusoids that published files hold.
void fill_sinusoids(const Tensor& weight) { weight.copy_(sinusoids(weight.size(0), weight.size(1), weight.device())); }

class WhisperPositions : public Module {
 public:
  WhisperPositions(const ModuleOptions& options, const WhisperConfig& c)
      : Module("WhisperPositions", options), weight(parameter("weight", {c.source_positions, c.dim}, fill_sinusoids)) {}
  const Tensor weight;
};

// [batch, frames, ...] -> [batch, frames / count, count, ...], without frames that are left over.
Tensor pooled(const Tensor& x, int64_t count) {
  const int64_t groups = x.size(1) / count;
  return x.narrow(1, 0, groups * count).unflatten(1, {groups, count});
}

// Padding is silence to a convolution, which has zeros beyond the ends too.
Tensor silenced(const Tensor& x, const Tensor& mask, int64_t mask_dim) {
  return mask.defined() ? x * mask.unsqueeze(mask_dim).to(x.scalar_type()) : x;
}

class WhisperEncoderLayer : public nn::EncoderLayer {
 public:
  WhisperEncoderLayer(const ModuleOptions& options, const WhisperConfig& c)
      : EncoderLayer("WhisperEncoderLayer", options),
        attention(
            *child<WhisperAttention>("self_attn", c.dim, c.encoder_heads, c.attention_dropout, c.std, c.key_bias)),
        attention_norm(*child<LayerNorm>("self_attn_layer_norm", c.dim, 1e-5)),
        feed_forward(c, *child<Linear>("fc1", c.dim, c.encoder_intermediate, true, c.std),
                     *child<Linear>("fc2", c.encoder_intermediate, c.dim, true, c.std)),
        norm(*child<LayerNorm>("final_layer_norm", c.dim, 1e-5)),
        dropout(c.dropout) {}

  nn::Attended forward(const Tensor& x, const Tensor& mask, const std::optional<nn::Segments>& segments, const Tensor&,
                       bool with_weights) const override {
    const Tensor normed = attention_norm.forward(x);
    nn::Attended result;
    if (segments) {
      result.output = attention.attend_each(normed, *segments);
    } else {
      result = attention.attend(normed, attention.keys_values(normed), nn::attention_mask(mask), false, with_weights);
    }
    const Tensor stream = attention.add(normed, result.output, x, dropout);
    result.output = feed_forward.forward(norm.forward(stream), stream, training());
    if (result.output.scalar_type() == at::kHalf) {
      constexpr double most = 65504 - 1000;
      result.output = at::clamp(result.output, -most, most);
    }
    result.output = watched(x, std::move(result.output));
    return result;
  }

 private:
  WhisperAttention& attention;
  LayerNorm& attention_norm;
  const WhisperFeedForward feed_forward;
  LayerNorm& norm;
  const double dropout;
};

}  // namespace

c10::intrusive_ptr<nn::EncoderLayer> make_whisper_layer(const ModuleOptions& options, const WhisperConfig& config) {
  return c10::make_intrusive<WhisperEncoderLayer>(options, config);
}

WhisperEncoder::WhisperEncoder(const ModuleOptions& options, const WhisperConfig& c)
    : Block("WhisperEncoder", options),
      config(c),
      conv1(*child<Conv1d>("conv1", nn::Conv1dShape{c.mels, c.dim, 3})),
      conv2(*child<Conv1d>("conv2", nn::Conv1dShape{c.dim, c.dim, 3, 2})),
      positions(*child<WhisperPositions>("embed_positions", c)),
      layers(*child<ModuleList<nn::EncoderLayer>>("layers")),
      norm(*child<LayerNorm>("layer_norm", c.dim, 1e-5)) {
  for (int64_t i = 0; i < c.encoder_layers; ++i) layers.append(make_whisper_layer(options, c));
}

void check_mel_features(const Tensor& features, const Tensor& mask, int64_t mels) {
  TORCH_CHECK(features.dim() == 3 && features.size(0) > 0 && features.size(1) == mels && features.size(2) > 0,
              "input_features must be [batch, ", mels, ", steps], got ", features.sizes());
  TORCH_CHECK(features.is_floating_point(), "input_features must have a floating-point dtype, got ",
              features.scalar_type());
  TORCH_CHECK(!mask.defined() || mask.sizes().equals({features.size(0), features.size(2)}), "attention_mask must be [",
              features.size(0), ", ", features.size(2), "] like the steps of input_features, got ", mask.sizes());
}

Tensor convolved_mel(const Conv1d& conv1, const Conv1d& conv2, const Tensor& features, const Tensor& mask) {
  const Tensor signal = silenced(features, mask, 1);  // [batch, mels, steps]
  if (signal.is_cpu() && is_inference() && !conv1.altered() && !conv2.altered()) {
    static const nn::Activation gelu = nn::activation("gelu");
    const auto padded = [](const Tensor& frames) { return at::constant_pad_nd(frames, {0, 0, 1, 1}); };
    const Tensor once = conv1.forward_frames(padded(signal.transpose(1, 2)), &gelu);
    return conv2.forward_frames(padded(silenced(once, mask, 2)), &gelu);
  }
  const auto padded = [](const Tensor& x) { return at::constant_pad_nd(x, {1, 1}); };
  const Tensor once = at::gelu(conv1.forward(padded(signal)));
  return at::gelu(conv2.forward(padded(silenced(once, mask, 1)))).transpose(1, 2);
}

WhisperEncoded WhisperEncoder::forward(const Tensor& features, const Tensor& given, bool hidden_states,
                                       bool attentions) const {
  check_mel_features(features, given, config.mels);
  TORCH_CHECK(features.size(2) <= 2 * config.source_positions, "input_features has ", features.size(2),
              " steps, but max_source_positions ", config.source_positions, " allows ", 2 * config.source_positions,
              " (30 seconds in published models); cut the audio into windows");
  Tensor mask = given.defined() ? given.to(at::kBool) : Tensor();
  if (mask.defined() && mask.is_cpu() && mask.all().item<bool>()) mask = Tensor();
  if (mask.defined()) mask = upload(mask, features.device());

  WhisperEncoded result;
  Tensor x =
      convolved_mel(conv1, conv2, features.to(conv1.weight.scalar_type()), config.silences_padding ? mask : Tensor());
  if (mask.defined()) result.mask = mask.slice(1, 0, mask.size(1), 2).contiguous();
  x = x + positions.parameters().front().second.narrow(0, 0, x.size(1));
  x = nn::drop(x, config.dropout, training());
  nn::EncoderStates states = nn::run_layers(
      layers, *this, std::move(x), {result.mask, {}, {}, hidden_states, attentions, config.encoder_layer_drop});
  result.attentions = std::move(states.attentions);
  result.hidden_states = std::move(states.hidden_states);
  if (config.encoder_pooling > 1) {
    states.last = pooled(states.last, config.encoder_pooling).mean(2);
    if (result.mask.defined()) result.mask = pooled(result.mask, config.encoder_pooling).all(2);
  }
  result.last_hidden_state = watched(features, norm.forward(states.last));
  if (hidden_states) result.hidden_states.back() = result.last_hidden_state;
  return result;
}

namespace {

c10::intrusive_ptr<Module> encoder_alone(const Config& config, const ModuleOptions& options) {
  return c10::make_intrusive<WhisperEncoder>(options, WhisperConfig(config));
}

const RegisteredModule registered_whisper_encoder("whisper_encoder", encoder_alone);

}  // namespace

}  // namespace voxtorch::models

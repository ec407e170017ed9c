#include "core/models/clip_layers.h"

#include <ATen/ops/ones.h>

#include <algorithm>

#include "core/nn/functions.h"
#include "core/nn/norm.h"

namespace voxtorch::models {

using at::Tensor;
using nn::LayerNorm;
using nn::Linear;

ClipLayerConfig::ClipLayerConfig(const Config& config, const ClipLayerSizes& defaults)
    : dim(positive(config, "hidden_size", defaults.dim)),
      intermediate(positive(config, "intermediate_size", defaults.intermediate)),
      layers(config.integer("num_hidden_layers", defaults.layers)),
      heads(positive(config, "num_attention_heads", defaults.heads)),
      eps(config.number("layer_norm_eps", 1e-5)),
      attention_dropout(config.probability("attention_dropout", 0)),
      factor(config.number("initializer_factor", 1)),
      activation(config.text("hidden_act", "quick_gelu")) {
  TORCH_CHECK(layers >= 0, "num_hidden_layers must not be negative, got ", layers);
  TORCH_CHECK(dim % heads == 0, "hidden_size ", dim, " is not divisible by num_attention_heads ", heads);
  out_std = root(dim) * factor;
  in_std = down_std = out_std * root(2 * std::max<int64_t>(layers, 1));
  up_std = root(2 * dim) * factor;
}

Tensor clip_causal_mask(int64_t time, c10::Device device) {
  return at::ones({1, 1, time, time}, at::TensorOptions().dtype(at::kBool).device(device)).tril();
}

namespace {

class ClipAttention : public Block {
 public:
  ClipAttention(const ModuleOptions& options, const ClipLayerConfig& c)
      : Block(c.family + "Attention", options),
        key(*child<Linear>("k_proj", c.dim, c.dim, true, c.in_std)),
        value(*child<Linear>("v_proj", c.dim, c.dim, true, c.in_std)),
        query(*child<Linear>("q_proj", c.dim, c.dim, true, c.in_std)),
        output(*child<Linear>("out_proj", c.dim, c.dim, true, c.out_std)),
        heads(c.heads),
        dropout(c.attention_dropout) {}

  // x [batch, time, dim]; without a mask and causal, each query sees the keys up to its own
  nn::Attended forward(const Tensor& x, const Tensor& mask, bool causal, bool with_weights) const {
    const auto project = [&](const Linear& layer) { return nn::split_heads(layer.forward(x), heads); };
    const Tensor q = project(query), k = project(key), v = project(value);
    const double drop = training() ? dropout : 0;
    if (causal && !mask.defined() && !with_weights) {
      return {nn::join_heads(nn::scaled_attention(q, k, v, std::nullopt, drop, true)), Tensor()};
    }
    const Tensor seen = causal && !mask.defined() ? clip_causal_mask(x.size(1), x.device()) : mask;
    nn::Attended result = nn::attend(q, k, v, seen, drop, with_weights);
    result.output = nn::join_heads(result.output);  // [batch, time, dim]
    return result;
  }

  // Each place of an image over the frames: x [batch * frames, places, dim] -> the same.
  Tensor over_time(const Tensor& x, int64_t frames) const {
    const int64_t batch = x.size(0) / frames, places = x.size(1), dim = x.size(2);
    const auto project = [&](const Linear& layer) {
      return layer.forward(x)
          .view({batch, frames, places, heads, dim / heads})
          .permute({0, 2, 3, 1, 4})
          .reshape({batch * places, heads, frames, dim / heads});
    };
    const Tensor attended =
        nn::attend(project(query), project(key), project(value), {}, training() ? dropout : 0, false).output;
    return attended.view({batch, places, heads, frames, dim / heads})
        .permute({0, 3, 1, 2, 4})
        .reshape({batch * frames, places, dim});
  }

  Tensor add(const Tensor& x, const Tensor& attended, const Tensor& residual) const {
    if (!hooked()) return output.forward_add(attended, residual);
    return residual + watched(x, output.forward(attended));
  }

 private:
  Linear &key, &value, &query, &output;
  const int64_t heads;
  const double dropout;
};

}  // namespace

ClipMlp::ClipMlp(const ModuleOptions& options, const ClipLayerConfig& c)
    : Block(c.family + "MLP", options),
      up(*child<Linear>("fc1", c.dim, c.intermediate, true, c.up_std)),
      down(*child<Linear>("fc2", c.intermediate, c.dim, true, c.down_std)),
      activation(nn::activation(c.activation)) {}

Tensor ClipMlp::add(const Tensor& x, const Tensor& residual) const {
  const Tensor inner = up.forward(x, activation);
  if (!hooked()) return down.forward_add(inner, residual);
  return residual + watched(x, down.forward(inner));
}

class ClipLayer : public Block {
 public:
  ClipLayer(const ModuleOptions& options, const ClipLayerConfig& c)
      : Block(c.family + "EncoderLayer", options),
        attention(*child<ClipAttention>("self_attn", c)),
        attention_norm(*child<LayerNorm>("layer_norm1", c.dim, c.eps)),
        mlp(*child<ClipMlp>("mlp", c)),
        mlp_norm(*child<LayerNorm>("layer_norm2", c.dim, c.eps)),
        frames(c.frames) {
    if (frames == 0) return;
    time_embedding = parameter("temporal_embedding", {1, frames, c.dim}, init::normal(root(c.dim)));
    time_attention = child<ClipAttention>("temporal_attn", c);
    time_norm = child<LayerNorm>("temporal_layer_norm1", c.dim, c.eps);
    if (!c.temporal_mlp) return;
    time_mlp = child<ClipMlp>("temporal_mlp", c);
    time_mlp_norm = child<LayerNorm>("temporal_layer_norm2", c.dim, c.eps);
  }

  nn::Attended forward(const Tensor& given, const Tensor& mask, bool causal, bool with_weights) const {
    const Tensor x = frames == 0 ? given : over_time(given);
    const Tensor normed = attention_norm.forward(x);
    nn::Attended result = attention.forward(normed, mask, causal, with_weights);
    const Tensor stream = attention.add(normed, result.output, x);
    result.output = watched(given, mlp.add(mlp_norm.forward(stream), stream));
    return result;
  }

 private:
  // [batch * frames, places, dim] -> the same
  Tensor over_time(const Tensor& given) const {
    // One frame has no order, but is attended to all the same.
    const Tensor x =
        frames == 1
            ? given
            : (given.unflatten(0, {given.size(0) / frames, frames}) + time_embedding.unsqueeze(2)).flatten(0, 1);
    const Tensor normed = time_norm->forward(x);
    const Tensor attended = time_attention->add(normed, time_attention->over_time(normed, frames), x);
    return time_mlp == nullptr ? attended : time_mlp->add(time_mlp_norm->forward(attended), attended);
  }

  ClipAttention& attention;
  LayerNorm& attention_norm;
  ClipMlp& mlp;
  LayerNorm& mlp_norm;
  const int64_t frames;
  Tensor time_embedding;  // [1, frames, dim]
  ClipAttention* time_attention = nullptr;
  LayerNorm *time_norm = nullptr, *time_mlp_norm = nullptr;
  ClipMlp* time_mlp = nullptr;
};

ClipEncoder::ClipEncoder(const ModuleOptions& options, const ClipLayerConfig& c)
    : Block(c.family + "Encoder", options), layers(*child<ModuleList<ClipLayer>>("layers")) {
  for (int64_t i = 0; i < c.layers; ++i) layers.add(c);
}

ClipOutput ClipEncoder::forward(Tensor x, const Tensor& mask, bool causal, bool hidden_states, bool attentions) const {
  const Tensor given = x;
  ClipOutput result;
  for (ClipLayer* layer : layers) {
    if (hidden_states) result.hidden_states.push_back(x);
    nn::Attended attended;
    if (nn::should_checkpoint(*this)) {
      nn::Tensors outputs =
          nn::checkpoint(*layer, {x, mask}, [layer, causal, attentions](const nn::Tensors& in) -> nn::Tensors {
            nn::Attended one = layer->forward(in[0], in[1], causal, attentions);
            if (!attentions) return {one.output};
            return {one.output, one.weights};
          });
      attended = {outputs[0], attentions ? outputs[1] : Tensor()};
    } else {
      attended = layer->forward(x, mask, causal, attentions);
    }
    x = std::move(attended.output);
    if (attentions) result.attentions.push_back(std::move(attended.weights));
  }
  if (hidden_states) result.hidden_states.push_back(x);
  result.last_hidden_state = watched(given, std::move(x));
  return result;
}

ClipPatches::ClipPatches(const ModuleOptions& options, at::IntArrayRef shape, bool with_bias, double std)
    : Block("Conv", options),
      weight(parameter("weight", shape, init::normal(std))),
      bias(with_bias ? parameter("bias", {shape[0]}, init::zeros()) : Tensor()),
      patch(shape.back()) {}

Tensor ClipPatches::forward(const Tensor& pixels) const {
  const int64_t rows = pixels.size(3) / patch, columns = pixels.size(4) / patch;
  const Tensor whole = pixels.narrow(3, 0, rows * patch).narrow(4, 0, columns * patch);
  const Tensor patches = whole.unflatten(4, {columns, patch})
                             .unflatten(3, {rows, patch})
                             .permute({0, 2, 3, 5, 1, 4, 6})
                             .reshape({pixels.size(0) * pixels.size(2), rows * columns, -1});
  const Tensor output =
      kernels::linear(patches, weight.flatten(1), bias.defined() ? std::optional(bias) : std::nullopt);
  if (!hooked()) return output;
  return watched(pixels, output.transpose(1, 2).unflatten(2, {rows, columns})).flatten(2).transpose(1, 2);
}

}  // namespace voxtorch::models

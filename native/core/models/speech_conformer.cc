#include "core/models/speech_conformer.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/glu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/stack.h>

#include <cmath>
#include <limits>

#include "core/nn/conv.h"
#include "core/nn/embedding.h"
#include "core/nn/linear.h"
#include "core/nn/norm.h"
#include "core/nn/rotary.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Conv1d;
using nn::Conv1dShape;
using nn::Embedding;
using nn::LayerNorm;
using nn::Linear;

namespace {

Init inverse_frequencies(int64_t head_dim, double base) {
  return [head_dim, base](const Tensor& tensor) {
    const Tensor powers = at::arange(0, head_dim, 2, at::kFloat) / static_cast<double>(head_dim);
    tensor.copy_(at::pow(base, powers).reciprocal());
  };
}

}  // namespace

ConformerPositions::ConformerPositions(const ModuleOptions& options, const SpeechConfig& c)
    : Block("ConformerPositions", options),
      relative(c.positions == "relative"),
      dim(c.dim),
      inverse(c.positions == "rotary" ? buffer("inv_freq", {c.dim / c.heads / 2}, options.dtype,
                                               inverse_frequencies(c.dim / c.heads, c.rotary_base))
                                      : Tensor()) {}

Tensor ConformerPositions::forward(int64_t time, const at::TensorOptions& like) const {
  if (inverse.defined()) {
    const Tensor angles = at::arange(time, inverse.options()).unsqueeze(1) * inverse;
    return at::stack({angles.cos(), angles.sin()}).unsqueeze(2).to(like);
  }
  if (!relative) return {};
  const auto exact = like.dtype(at::kFloat);
  const Tensor distances = at::arange(time - 1, -time, -1, exact).unsqueeze(1);
  const Tensor frequencies = (at::arange(0, dim, 2, exact) * (-std::log(10000.0) / static_cast<double>(dim))).exp();
  const Tensor angles = distances * frequencies;
  return at::stack({angles.sin(), angles.cos()}, -1).flatten(1).narrow(1, 0, dim).to(like);
}

namespace {

class ConformerAttention : public Block {
 public:
  // `positions` as SpeechConfig has it.
  ConformerAttention(const ModuleOptions& options, const SpeechConfig& c, int64_t dim, const std::string& positions)
      : Block("ConformerAttention", options),
        query(*child<Linear>("linear_q", dim, dim, true, c.std)),
        key(*child<Linear>("linear_k", dim, dim, true, c.std)),
        value(*child<Linear>("linear_v", dim, dim, true, c.std)),
        output(*child<Linear>("linear_out", dim, dim, true, c.std)),
        sines(positions == "relative" ? child<Linear>("linear_pos", dim, dim, false, c.std) : nullptr),
        content_bias(bias("pos_bias_u", c.heads, dim)),
        position_bias(bias("pos_bias_v", c.heads, dim)),
        distances(positions == "relative_key"
                      ? child<Embedding>("distance_embedding", c.left_positions + c.right_positions + 1, dim / c.heads,
                                         -1, c.std)
                      : nullptr),
        rotates(positions == "rotary"),
        heads(c.heads),
        left(c.left_positions),
        right(c.right_positions),
        scale(1 / std::sqrt(static_cast<double>(dim / c.heads))),
        dropout(c.attention_dropout) {}

  // x [batch, time, dim], mask bool [batch, time] or undefined, relative as ConformerPositions makes it.
  nn::Attended forward(const Tensor& x, const Tensor& mask, const Tensor& relative, bool with_weights) const {
    const Tensor turned = rotates ? rotate(x, relative) : x;
    Tensor q = nn::split_heads(query.forward(turned), heads);
    const Tensor k = nn::split_heads(key.forward(turned), heads), v = nn::split_heads(value.forward(x), heads);
    Tensor seen = nn::attention_mask(mask);
    Tensor scores;  // what positions add, [batch, heads, time, time]
    if (sines != nullptr) {
      scores = by_sines(q + position_bias.unsqueeze(1), relative);
      q = q + content_bias.unsqueeze(1);
    }
    if (distances != nullptr) scores = by_distance(q);
    if (scores.defined()) {
      scores = scores * scale;
      seen = seen.defined() ? scores.masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity()) : scores;
    }
    nn::Attended result = nn::attend(q, k, v, seen, training() ? dropout : 0, with_weights);
    result.output = watched(x, output.forward(nn::join_heads(result.output)));
    return result;
  }

 private:
  Tensor bias(const char* name, int64_t heads, int64_t dim) {
    if (sines == nullptr) return {};
    return parameter(name, {heads, dim / heads},
                     init::uniform(std::sqrt(6.0 / static_cast<double>(heads + dim / heads))));
  }

  Tensor rotate(const Tensor& x, const Tensor& turns) const {
    const nn::Rotation rotation{turns.select(0, 0), turns.select(0, 1)};
    return rotation.apply(x.unflatten(-1, {heads, -1})).flatten(-2);
  }

  // Transformer-XL's (Dai et al. 2019, https://arxiv.org/abs/1901.02860): query i sees column time - 1 - i + j for key
  // j.
  Tensor by_sines(const Tensor& q, const Tensor& table) const {
    const Tensor places = sines->forward(table).unflatten(-1, {heads, -1}).permute({1, 2, 0});  // [heads, dim, 2t - 1]
    const Tensor all = at::matmul(q, places);                                                   // [b, heads, t, 2t - 1]
    const int64_t batch = all.size(0), time = all.size(2), wide = all.size(3);
    return at::constant_pad_nd(all, {1, 0})
        .view({batch, heads, wide + 1, time})
        .narrow(2, 1, wide)
        .reshape({batch, heads, time, wide})
        .narrow(3, 0, time);
  }

  // Shaw et al. 2018, https://arxiv.org/abs/1803.02155.
  Tensor by_distance(const Tensor& q) const {
    const int64_t time = q.size(2);
    const Tensor rows = at::matmul(q.flatten(0, 2), distances->weight.to(q.scalar_type()).t());
    const Tensor all = rows.unflatten(0, {q.size(0), heads, time});  // [batch, heads, time, distances]
    const Tensor steps = at::arange(time, q.options().dtype(at::kLong));
    const Tensor places = (steps.unsqueeze(0) - steps.unsqueeze(1)).clamp(-left, right) + left;  // [time, time]
    return all.gather(3, places.expand({q.size(0), heads, time, time}));
  }

  Linear &query, &key, &value, &output;
  Linear* const sines;
  const Tensor content_bias, position_bias;  // [heads, dim / heads], with sines
  Embedding* const distances;
  const bool rotates;
  const int64_t heads, left, right;
  const double scale, dropout;
};

class ConformerConvolution : public Block {
 public:
  ConformerConvolution(const ModuleOptions& options, const SpeechConfig& c)
      : Block("ConformerConvolution", options),
        causal(c.feature_dim > 0),
        norm(*child<LayerNorm>("layer_norm", c.dim, c.layer_eps())),
        first(*child<Conv1d>("pointwise_conv1", Conv1dShape{c.dim, 2 * c.dim, 1, 1, false})),
        depthwise(*child<Conv1d>("depthwise_conv", Conv1dShape{c.dim, c.dim, c.depthwise_kernel, 1, false, c.dim,
                                                               causal ? 0 : c.depthwise_kernel / 2})),
        batch_norm(causal ? nullptr : child<nn::BatchNorm1d>("batch_norm", c.dim)),
        depthwise_norm(causal ? child<LayerNorm>("depthwise_layer_norm", c.dim, c.layer_eps()) : nullptr),
        second(*child<Conv1d>("pointwise_conv2", Conv1dShape{c.dim, c.dim, 1, 1, false})),
        activation(nn::activation(c.activation)),
        dropout(c.conv_dropout) {}

  Tensor forward(const Tensor& input, const Tensor& mask) const {  // [batch, time, dim]
    Tensor x = norm.forward(input);
    if (causal && mask.defined()) x = x.masked_fill(mask.logical_not().unsqueeze(-1), 0);
    x = at::glu(pointwise(first, x), -1).transpose(1, 2);
    if (causal) x = at::constant_pad_nd(x, {depthwise.weight.size(2) - 1, 0});
    x = depthwise.forward(x);
    x = causal ? depthwise_norm->forward(x.transpose(1, 2).contiguous()) : batch_norm->forward(x).transpose(1, 2);
    return watched(input, nn::drop(pointwise(second, activation(x)), dropout, training()));
  }

 private:
  // A convolution of one step is a product.
  static Tensor pointwise(const Conv1d& conv, const Tensor& x) {
    if (conv.altered()) return conv.forward(x.transpose(1, 2)).transpose(1, 2);
    // As rows: with three dimensions matmul chooses its way by whether a gradient is needed, and so its rounding.
    return at::linear(x.flatten(0, 1), conv.weight.squeeze(-1)).unflatten(0, {x.size(0), x.size(1)});
  }

  const bool causal;
  LayerNorm& norm;
  Conv1d &first, &depthwise;
  const nn::BatchNorm1d* const batch_norm;
  const LayerNorm* const depthwise_norm;
  Conv1d& second;
  const nn::Activation activation;
  const double dropout;
};

class ConformerLayer : public SpeechLayer {
 public:
  ConformerLayer(const ModuleOptions& options, const SpeechConfig& c)
      : SpeechLayer("ConformerLayer", options),
        first_norm(*child<LayerNorm>("ffn1_layer_norm", c.dim, c.layer_eps())),
        first(*child<SpeechFeedForward>("ffn1", c, c.dim, c.activation)),
        attention_norm(*child<LayerNorm>("self_attn_layer_norm", c.dim, c.layer_eps())),
        attention(*child<ConformerAttention>("self_attn", c, c.dim, c.positions)),
        convolution(*child<ConformerConvolution>("conv_module", c)),
        second_norm(*child<LayerNorm>("ffn2_layer_norm", c.dim, c.layer_eps())),
        second(*child<SpeechFeedForward>("ffn2", c, c.dim, c.activation)),
        final_norm(*child<LayerNorm>("final_layer_norm", c.dim, c.layer_eps())),
        dropout(c.attention_dropout) {}

  nn::Attended forward(const Tensor& input, const Tensor& mask, const std::optional<nn::Segments>& segments,
                       const Tensor& relative, bool with_weights) const override {
    TORCH_INTERNAL_ASSERT(!segments, "Conformer layers see neighbors by convolution and need padded rows");
    Tensor x = input + 0.5 * first.forward(first_norm.forward(input));
    nn::Attended result = attention.forward(attention_norm.forward(x), mask, relative, with_weights);
    x = x + nn::drop(result.output, dropout, training());
    x = x + convolution.forward(x, mask);
    x = x + 0.5 * second.forward(second_norm.forward(x));
    result.output = watched(input, final_norm.forward(x));
    return result;
  }

 private:
  LayerNorm& first_norm;
  SpeechFeedForward& first;
  LayerNorm& attention_norm;
  ConformerAttention& attention;
  ConformerConvolution& convolution;
  LayerNorm& second_norm;
  SpeechFeedForward& second;
  LayerNorm& final_norm;
  const double dropout;
};

}  // namespace

c10::intrusive_ptr<SpeechLayer> make_conformer_layer(const ModuleOptions& options, const SpeechConfig& config) {
  return c10::make_intrusive<ConformerLayer>(options, config);
}

class ConformerAdapterLayer : public Block {
 public:
  ConformerAdapterLayer(const ModuleOptions& options, const SpeechConfig& c)
      : Block("ConformerAdapterLayer", options),
        residual_norm(*child<LayerNorm>("residual_layer_norm", c.output_dim, c.eps)),
        residual_conv(*child<Conv1d>("residual_conv", shape(c))),
        attention_norm(*child<LayerNorm>("self_attn_layer_norm", c.output_dim, c.eps)),
        attention_conv(*child<Conv1d>("self_attn_conv", shape(c))),
        attention(*child<ConformerAttention>("self_attn", c, c.output_dim, "")),
        feed_forward_norm(*child<LayerNorm>("ffn_layer_norm", c.output_dim, c.eps)),
        feed_forward(*child<SpeechFeedForward>("ffn", c, c.output_dim, c.adapter_activation)),
        dropout(c.conv_dropout) {}

  // lengths int64 [batch], of the output; undefined: all steps are there
  Tensor forward(const Tensor& x, const Tensor& lengths) const {
    const Tensor residual = pooled(residual_conv, residual_norm.forward(x));
    const Tensor shorter = pooled(attention_conv, attention_norm.forward(x));
    Tensor mask;
    if (lengths.defined()) mask = at::arange(shorter.size(1), lengths.options()) < lengths.clamp_min(1).unsqueeze(1);
    const Tensor attended = attention.forward(shorter, mask, {}, false).output;
    const Tensor sum = nn::drop(attended, dropout, training()) + residual;
    return watched(x, sum + feed_forward.forward(feed_forward_norm.forward(sum)));
  }

 private:
  static Conv1dShape shape(const SpeechConfig& c) {
    return {c.output_dim, 2 * c.output_dim, c.adapter_kernel, c.adapter_stride, true, 1, c.adapter_stride / 2};
  }
  static Tensor pooled(const Conv1d& conv, const Tensor& x) {
    return at::glu(conv.forward(x.transpose(1, 2)), 1).transpose(1, 2).contiguous();
  }

  LayerNorm& residual_norm;
  Conv1d& residual_conv;
  LayerNorm& attention_norm;
  Conv1d& attention_conv;
  ConformerAttention& attention;
  LayerNorm& feed_forward_norm;
  SpeechFeedForward& feed_forward;
  const double dropout;
};

ConformerAdapter::ConformerAdapter(const ModuleOptions& options, const SpeechConfig& c)
    : Block("ConformerAdapter", options),
      projection(c.output_dim != c.dim ? child<Linear>("proj", c.dim, c.output_dim, true, c.std) : nullptr),
      norm(c.output_dim != c.dim ? child<LayerNorm>("proj_layer_norm", c.output_dim, c.eps) : nullptr),
      layers(*child<ModuleList<ConformerAdapterLayer>>("layers")),
      kernel(c.adapter_kernel),
      stride(c.adapter_stride),
      layer_drop(c.layer_drop) {
  for (int64_t i = 0; i < c.adapter_layers; ++i) layers.add(c);
}

Tensor ConformerAdapter::forward(const Tensor& frames, const Tensor& mask) const {
  Tensor x = projection != nullptr ? norm->forward(projection->forward(frames)) : frames;
  Tensor lengths = mask.defined() ? mask.to(at::kLong).sum(1) : Tensor();
  for (const ConformerAdapterLayer* layer : layers) {
    if (lengths.defined()) lengths = (lengths + 2 * (kernel / 2) - kernel).floor_divide(stride) + 1;
    if (training() && is_dropped(layer_drop)) continue;
    x = layer->forward(x, lengths);
  }
  return watched(frames, x);
}

}  // namespace voxtorch::models

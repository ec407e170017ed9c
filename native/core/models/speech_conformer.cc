#include "core/models/speech_conformer.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/glu.h>
#include <ATen/ops/stack.h>

#include <cmath>

#include "core/nn/conformer.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Conv1d;
using nn::Conv1dShape;
using nn::LayerNorm;
using nn::Linear;

namespace {

nn::ConformerShape conformer_shape(const SpeechConfig& c) {
  const bool of_spectra = c.feature_dim > 0;
  return {.dim = c.dim,
          .heads = c.heads,
          .intermediate = c.intermediate,
          .kernel = c.depthwise_kernel,
          .activation = c.activation,
          .eps = c.layer_eps(),
          .std = c.std,
          .positions = c.positions,
          .position_biases = init::uniform(std::sqrt(6.0 / static_cast<double>(c.heads + c.dim / c.heads))),
          .left = c.left_positions,
          .right = c.right_positions,
          .causal = of_spectra,
          .masks_convolution = of_spectra,
          .attention_dropout = c.attention_dropout,
          .activation_dropout = c.activation_dropout,
          .feed_forward_dropout = c.dropout,
          .residual_dropout = c.attention_dropout,
          .convolution_dropout = c.conv_dropout};
}

// Attention of the adapter, without positions.
nn::ConformerShape adapter_shape(const SpeechConfig& c) {
  nn::ConformerShape shape = conformer_shape(c);
  shape.dim = c.output_dim;
  shape.positions.clear();
  return shape;
}

}  // namespace

ConformerPositions::ConformerPositions(const ModuleOptions& options, const SpeechConfig& c)
    : Block("ConformerPositions", options),
      relative(c.positions == "relative"),
      dim(c.dim),
      // Files of Wav2Vec2Bert, which reads spectra, do not have it.
      inverse(c.positions == "rotary" ? buffer(
                                            "inv_freq", {c.dim / c.heads / 2}, options.dtype,
                                            [width = c.dim / c.heads, base = c.rotary_base](const Tensor& tensor) {
                                              tensor.copy_(nn::inverse_frequencies(width, base, at::kCPU));
                                            },
                                            c.feature_dim == 0)
                                      : Tensor()) {}

Tensor ConformerPositions::forward(int64_t time, const at::TensorOptions& like) const {
  if (inverse.defined()) {
    const Tensor angles = at::arange(time, inverse.options()).unsqueeze(1) * inverse;
    return at::stack({angles.cos(), angles.sin()}).unsqueeze(2).to(like);
  }
  if (!relative) return {};
  const Tensor steps = at::arange(0, dim, 2, like.dtype(at::kFloat));
  const Tensor frequencies = (steps * (-std::log(10000.0) / static_cast<double>(dim))).exp();
  return nn::distance_sines(frequencies, time - 1, time - 1).narrow(-1, 0, dim).to(like);
}

c10::intrusive_ptr<nn::EncoderLayer> make_conformer_layer(const ModuleOptions& options, const SpeechConfig& config) {
  return c10::make_intrusive<nn::ConformerLayer>(options, conformer_shape(config));
}

class ConformerAdapterLayer : public Block {
 public:
  ConformerAdapterLayer(const ModuleOptions& options, const SpeechConfig& c)
      : Block("ConformerAdapterLayer", options),
        residual_norm(*child<LayerNorm>("residual_layer_norm", c.output_dim, c.eps)),
        residual_conv(*child<Conv1d>("residual_conv", shape(c))),
        attention_norm(*child<LayerNorm>("self_attn_layer_norm", c.output_dim, c.eps)),
        attention_conv(*child<Conv1d>("self_attn_conv", shape(c))),
        attention(*child<nn::ConformerAttention>("self_attn", adapter_shape(c))),
        feed_forward_norm(*child<LayerNorm>("ffn_layer_norm", c.output_dim, c.eps)),
        feed_forward(*child<nn::FeedForward>("ffn", c.feed_forward(c.output_dim, c.adapter_activation))),
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
  nn::ConformerAttention& attention;
  LayerNorm& feed_forward_norm;
  nn::FeedForward& feed_forward;
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
    if (training() && nn::is_dropped(layer_drop)) continue;
    x = layer->forward(x, lengths);
  }
  return watched(frames, x);
}

}  // namespace voxtorch::models

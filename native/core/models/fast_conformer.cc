// FastConformer (Rekesh et al. 2023, https://arxiv.org/abs/2305.05084), the encoder of Parakeet and Canary, with the
// names of transformers' ParakeetEncoder: log-mel frames -> depthwise convolutions that shorten time, usually by 8 ->
// Conformer blocks (Gulati et al. 2020, https://arxiv.org/abs/2005.08100) with relative positions.
#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/glu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/stack.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "core/kernels/linear.h"
#include "core/nn/checkpoint.h"
#include "core/nn/conv.h"
#include "core/nn/linear.h"
#include "core/nn/norm.h"
#include "core/runtime/recording.h"
#include "core/runtime/transfers.h"

namespace voxtorch::models {

using at::Tensor;
using nn::LayerNorm;
using nn::Linear;

namespace {

constexpr double kEps = 1e-5;

}  // namespace

struct FastConformerConfig {
  explicit FastConformerConfig(const Config& config);
  // Frames that the convolutions make of so many.
  Tensor frames(const Tensor& lengths) const;
  int64_t frames(int64_t length) const;

  int64_t dim, layers, heads, intermediate;
  std::string activation;
  bool attention_bias, convolution_bias;
  int64_t conv_kernel;
  int64_t subsampling_factor, subsampling_channels, subsampling_kernel, subsampling_stride, subsampling_layers;
  int64_t mel_bins;
  double dropout, position_dropout, layer_drop, activation_dropout, attention_dropout;
  bool scale_input;
  double std;
  bool local;           // whether a frame attends to its neighbors only
  int64_t left, right;  // how many on each side
};

FastConformerConfig::FastConformerConfig(const Config& config)
    : dim(config.integer("hidden_size", 1024)),
      layers(config.integer("num_hidden_layers", 24)),
      heads(config.integer("num_attention_heads", 8)),
      intermediate(config.integer("intermediate_size", 4096)),
      activation(config.text("hidden_act", "silu")),
      attention_bias(config.boolean("attention_bias", true)),
      convolution_bias(config.boolean("convolution_bias", true)),
      conv_kernel(config.integer("conv_kernel_size", 9)),
      subsampling_factor(config.integer("subsampling_factor", 8)),
      subsampling_channels(config.integer("subsampling_conv_channels", 256)),
      subsampling_kernel(config.integer("subsampling_conv_kernel_size", 3)),
      subsampling_stride(config.integer("subsampling_conv_stride", 2)),
      subsampling_layers(0),
      mel_bins(config.integer("num_mel_bins", 80)),
      dropout(config.probability("dropout", 0.1)),
      position_dropout(config.probability("dropout_positions", 0)),
      layer_drop(config.probability("layerdrop", 0.1)),
      activation_dropout(config.probability("activation_dropout", 0.1)),
      attention_dropout(config.probability("attention_dropout", 0.1)),
      scale_input(config.boolean("scale_input", true)),
      std(config.number("initializer_range", 0.02)),
      local(config.text("self_attention_model", "rel_pos") == "rel_pos_local_attn"),
      left(0),
      right(0) {
  TORCH_CHECK(heads > 0 && dim > 0 && dim % heads == 0, "hidden_size ", dim,
              " is not divisible by num_attention_heads ", heads);
  TORCH_CHECK(dim % 2 == 0, "hidden_size must be even, as positions are sines and cosines, got ", dim);
  TORCH_CHECK(layers >= 0 && intermediate > 0, "num_hidden_layers must not be negative and intermediate_size must be ",
              "positive, got ", layers, " and ", intermediate);
  TORCH_CHECK(conv_kernel > 0 && conv_kernel % 2 == 1, "conv_kernel_size must be odd, got ", conv_kernel);
  TORCH_CHECK(subsampling_factor >= 2 && (subsampling_factor & (subsampling_factor - 1)) == 0,
              "subsampling_factor must be 2, 4, 8 or another power of 2, got ", subsampling_factor);
  for (int64_t factor = subsampling_factor; factor > 1; factor /= 2) ++subsampling_layers;
  TORCH_CHECK(subsampling_channels > 0 && subsampling_kernel > 0 && subsampling_kernel % 2 == 1 &&
                  subsampling_stride > 0 && mel_bins > 0,
              "subsampling_conv_channels, subsampling_conv_stride and num_mel_bins must be positive and "
              "subsampling_conv_kernel_size odd, got ",
              subsampling_channels, ", ", subsampling_stride, ", ", mel_bins, " and ", subsampling_kernel);
  const std::string kind = config.text("self_attention_model", "rel_pos");
  TORCH_CHECK(kind == "rel_pos" || local, "self_attention_model must be 'rel_pos' or 'rel_pos_local_attn', not '", kind,
              "'");
  const std::vector<int64_t> context = config.integers("att_context_size", {-1, -1});
  TORCH_CHECK(context.size() == 2, "att_context_size must be the numbers of frames before and after, got ",
              context.size(), " numbers");
  if (local) {
    TORCH_CHECK(context[0] >= 1 && context[1] >= 1,
                "att_context_size must be positive with self_attention_model 'rel_pos_local_attn', got ", context[0],
                " and ", context[1]);
    left = context[0];
    right = context[1];
  } else {
    TORCH_CHECK(context[0] == -1 && context[1] == -1,
                "att_context_size must be [-1, -1] with self_attention_model 'rel_pos', got [", context[0], ", ",
                context[1], "]");
  }
  int64_t stride = 1;
  for (int64_t i = 0; i < subsampling_layers; ++i) stride *= subsampling_stride;
  TORCH_CHECK(frames(mel_bins) == mel_bins / stride, "num_mel_bins ", mel_bins, " must be divisible by ", stride,
              ", the product of the strides of the subsampling");
}

Tensor FastConformerConfig::frames(const Tensor& given) const {
  Tensor lengths = given;
  for (int64_t i = 0; i < subsampling_layers; ++i) {
    lengths = (lengths + ((subsampling_kernel - 1) / 2 * 2 - subsampling_kernel)).floor_divide(subsampling_stride) + 1;
  }
  return lengths;
}

int64_t FastConformerConfig::frames(int64_t length) const {
  for (int64_t i = 0; i < subsampling_layers && length > 0; ++i) {
    const int64_t room = length + (subsampling_kernel - 1) / 2 * 2 - subsampling_kernel;
    length = room < 0 ? 0 : room / subsampling_stride + 1;
  }
  return length;
}

struct FastConformerOutput {
  Tensor last_hidden_state;           // [batch, frames, dim]
  Tensor mask;                        // bool [batch, frames]; undefined where none was given
  std::vector<Tensor> hidden_states;  // the first layer's input and each layer's output, where asked for
  std::vector<Tensor> attentions;     // [batch, heads, frames, frames] per layer, where asked for
};

class FastConformerSubsampling;
class FastConformerLayer;

class FastConformer : public Block, public nn::Checkpointing {
 public:
  FastConformer(const ModuleOptions& options, const Config& config);
  // features [batch, time, mel bins]; mask [batch, time], 1 for valid frames, or undefined.
  FastConformerOutput forward(const Tensor& features, const Tensor& mask, bool hidden_states, bool attentions) const;

  const FastConformerConfig config;

 private:
  void check(const Tensor& features, const Tensor& mask, bool attentions) const;
  Tensor positions(int64_t before, int64_t after, const Tensor& like) const;

  FastConformerSubsampling& subsampling;
  ModuleList<FastConformerLayer>& layers;
};

namespace {

std::optional<Tensor> optional(const Tensor& tensor) {
  return tensor.defined() ? std::optional<Tensor>(tensor) : std::nullopt;
}

class Conv2d : public Block {
 public:
  struct Shape {
    int64_t in, out, kernel, stride = 1, groups = 1;
  };
  Conv2d(const ModuleOptions& options, const Shape& s, double std)
      : Block("Conv2d", options),
        weight(parameter("weight", {s.out, s.in / s.groups, s.kernel, s.kernel}, init::normal(std))),
        bias(parameter("bias", {s.out}, init::zeros())),
        shape(s) {}

  Tensor forward(const Tensor& x) const {  // [batch, in, time, bins] -> [batch, out, time', bins']
    const int64_t padding = (shape.kernel - 1) / 2;
    return watched(x,
                   at::conv2d(x, weight, bias, {shape.stride, shape.stride}, {padding, padding}, {1, 1}, shape.groups));
  }

  const Tensor weight, bias;

 private:
  const Shape shape;
};

// The activations between the convolutions have places of their own in the list, and so in the names.
class SubsamplingLayers : public Module {
 public:
  SubsamplingLayers(const ModuleOptions& options, const FastConformerConfig& c) : Module("ModuleList", options) {
    const int64_t channels = c.subsampling_channels, kernel = c.subsampling_kernel, stride = c.subsampling_stride;
    first = child<Conv2d>("0", Conv2d::Shape{1, channels, kernel, stride}, c.std);
    for (int64_t i = 1; i < c.subsampling_layers; ++i) {
      const int64_t place = 3 * i - 1;
      depthwise.push_back(
          child<Conv2d>(std::to_string(place), Conv2d::Shape{channels, channels, kernel, stride, channels}, c.std));
      pointwise.push_back(child<Conv2d>(std::to_string(place + 1), Conv2d::Shape{channels, channels, 1}, c.std));
    }
  }

  Conv2d* first;
  std::vector<Conv2d*> depthwise, pointwise;
};

}  // namespace

class FastConformerSubsampling : public Block {
 public:
  FastConformerSubsampling(const ModuleOptions& options, const FastConformerConfig& c)
      : Block("FastConformerSubsampling", options),
        config(c),
        layers(*child<SubsamplingLayers>("layers", c)),
        linear(*child<Linear>("linear", c.subsampling_channels * c.frames(c.mel_bins), c.dim, true, c.std)) {}

  // features [batch, time, bins], lengths int64 [batch] or undefined -> [batch, frames, dim]
  Tensor forward(const Tensor& features, Tensor lengths) const {
    Tensor x = features.to(layers.first->weight.scalar_type()).unsqueeze(1);
    const auto convolve = [&](const Conv2d& conv, bool shortens) {
      x = conv.forward(x);
      if (!lengths.defined()) return;
      if (shortens) {
        lengths = (lengths + ((config.subsampling_kernel - 1) / 2 * 2 - config.subsampling_kernel))
                      .floor_divide(config.subsampling_stride) +
                  1;
      }
      const Tensor valid = at::arange(x.size(2), lengths.options()).unsqueeze(0) < lengths.unsqueeze(1);
      x = x * valid.unsqueeze(1).unsqueeze(-1).to(x.scalar_type());
    };
    convolve(*layers.first, true);
    x = at::relu(x);
    for (size_t i = 0; i < layers.depthwise.size(); ++i) {
      convolve(*layers.depthwise[i], true);
      convolve(*layers.pointwise[i], false);
      x = at::relu(x);
    }
    return watched(features, linear.forward(x.transpose(1, 2).flatten(2)));
  }

 private:
  const FastConformerConfig& config;
  SubsamplingLayers& layers;
  Linear& linear;
};

namespace {

// What one pass hands to each layer.
struct Pass {
  Tensor valid;      // bool [batch, frames]; undefined: all
  Tensor positions;  // sines and cosines of distances, the largest first, [1 or batch, distances, dim]
  int64_t before;    // how many distances come before 0: the largest one
  bool attentions;
};

class FeedForward : public Block {
 public:
  FeedForward(const ModuleOptions& options, const FastConformerConfig& c)
      : Block("FastConformerFeedForward", options),
        up(*child<Linear>("linear1", c.dim, c.intermediate, c.attention_bias, c.std)),
        down(*child<Linear>("linear2", c.intermediate, c.dim, c.attention_bias, c.std)),
        activation(nn::activation(c.activation)),
        dropout(c.activation_dropout) {}

  Tensor forward(const Tensor& x) const {
    return watched(x, down.forward(nn::drop(up.forward(x, activation), dropout, training())));
  }

 private:
  Linear &up, &down;
  const nn::Activation activation;
  const double dropout;
};

// scores [..., queries, queries + keys - 1] of each query by distance, the largest of the last query first, as those of
// its keys, [..., queries, keys]: row i begins at column queries - 1 - i. A view (Dai et al. 2019,
// https://arxiv.org/abs/1901.02860, appendix B).
Tensor by_key(const Tensor& scores, int64_t keys) {
  const int64_t queries = scores.size(-2), width = scores.size(-1);
  if (queries == 1) return scores;
  return scores.flatten(-2)
      .narrow(-1, queries - 1, queries * (width - 1))
      .unflatten(-1, {queries, width - 1})
      .narrow(-1, 0, keys);
}

class Attention : public Block {
 public:
  Attention(const ModuleOptions& options, const FastConformerConfig& c)
      : Block("FastConformerAttention", options),
        content_bias(parameter("bias_u", {c.heads, c.dim / c.heads}, init::normal(c.std))),
        position_bias(parameter("bias_v", {c.heads, c.dim / c.heads}, init::normal(c.std))),
        query(*child<Linear>("q_proj", c.dim, c.dim, c.attention_bias, c.std)),
        key(*child<Linear>("k_proj", c.dim, c.dim, c.attention_bias, c.std)),
        value(*child<Linear>("v_proj", c.dim, c.dim, c.attention_bias, c.std)),
        output(*child<Linear>("o_proj", c.dim, c.dim, c.attention_bias, c.std)),
        relative_key(*child<Linear>("relative_k_proj", c.dim, c.dim, false, c.std)),
        config(c) {}

  nn::Attended forward(const Tensor& x, const Pass& pass) const {  // [batch, frames, dim]
    const auto project = [&](const Linear& layer) { return nn::split_heads(layer.forward(x), config.heads); };
    const Tensor asked = project(query);
    const Inputs in{asked + content_bias.unsqueeze(1),
                    asked + position_bias.unsqueeze(1),
                    project(key),
                    project(value),
                    nn::split_heads(relative_key.forward(pass.positions), config.heads).transpose(-1, -2),
                    pass.valid.defined() ? pass.valid.unsqueeze(1).unsqueeze(1) : Tensor(),
                    pass.before};
    nn::Attended result = config.local ? local(in) : attend(in, {0, x.size(1)}, {0, x.size(1)}, {}, pass.attentions);
    result.output = watched(x, output.forward(nn::join_heads(result.output)));
    return result;
  }

 private:
  struct Inputs {
    Tensor query, position_query, key, value;  // [batch, heads, frames, head dim]
    Tensor relative;                           // [1 or batch, heads, head dim, distances]
    Tensor valid;                              // bool [batch, 1, 1, frames], undefined: all
    int64_t before;                            // the largest distance
  };
  struct Span {
    int64_t begin, end;
    int64_t size() const { return end - begin; }
  };

  // Queries of a span attend to keys of a span; `near` is bool [queries, keys], undefined: all.
  nn::Attended attend(const Inputs& in, Span queries, Span keys, const Tensor& near, bool with_weights) const {
    const auto part = [](const Tensor& x, Span span) {
      return span.size() == x.size(2) ? x : x.narrow(2, span.begin, span.size());
    };
    // The largest distance is that of the last query to the first key.
    const int64_t largest = queries.end - 1 - keys.begin, count = queries.size() + keys.size() - 1;
    const Tensor relative = in.relative.narrow(-1, in.before - largest, count);
    const double scale = 1 / std::sqrt(static_cast<double>(in.query.size(-1)));
    Tensor bias = by_key(at::matmul(part(in.position_query, queries) * scale, relative), keys.size());
    // As in the reference finite, so that a frame of padding, which has nothing to attend to, gives a number.
    Tensor seen = near;
    if (in.valid.defined()) {
      const Tensor valid = in.valid.narrow(-1, keys.begin, keys.size());
      seen = seen.defined() ? seen.logical_and(valid) : valid;
    }
    if (seen.defined()) bias = bias.masked_fill(seen.logical_not(), lowest(bias.scalar_type()));
    return nn::attend(part(in.query, queries), part(in.key, keys), part(in.value, keys), bias,
                      training() ? config.attention_dropout : 0, with_weights);
  }

  static double lowest(at::ScalarType type) {
    switch (type) {
      case at::kDouble:
        return std::numeric_limits<double>::lowest();
      case at::kHalf:
        return -65504;
      case at::kBFloat16:
        return -3.3895313892515355e38;
      default:
        return std::numeric_limits<float>::lowest();
    }
  }

  // The same numbers as under a mask of the frames near each, in memory that grows with time, not with its square.
  nn::Attended local(const Inputs& in) const {
    const int64_t frames = in.query.size(2), step = local_step(config);
    std::vector<Tensor> parts;
    for (int64_t begin = 0; begin < frames; begin += step) {
      const Span queries{begin, std::min(begin + step, frames)};
      const Span keys{std::max<int64_t>(begin - config.left, 0), std::min(queries.end + config.right, frames)};
      const at::TensorOptions options = in.query.options().dtype(at::kLong);
      const Tensor distance = at::arange(queries.begin, queries.end, options).unsqueeze(1) -
                              at::arange(keys.begin, keys.end, options).unsqueeze(0);
      const Tensor near = distance.le(config.left).logical_and(distance.ge(-config.right));
      parts.push_back(attend(in, queries, keys, near, false).output);
    }
    return {at::cat(parts, 2), Tensor()};
  }

 public:
  // Queries of one block of local attention.
  static int64_t local_step(const FastConformerConfig& c) { return std::max<int64_t>(c.left + c.right, 64); }

 private:
  const Tensor content_bias, position_bias;  // [heads, head dim]
  Linear &query, &key, &value, &output, &relative_key;
  const FastConformerConfig& config;
};

// A convolution of one tap: a product of each frame, with the weight [out, in, 1].
class PointwiseConv : public nn::Conv1d {
 public:
  PointwiseConv(const ModuleOptions& options, const FastConformerConfig& c, int64_t out)
      : Conv1d(options, {c.dim, out, 1, 1, c.convolution_bias, 1, 0, true, c.std}) {}
  Tensor of_frames(const Tensor& x) const {  // [batch, frames, in] -> [batch, frames, out]
    if (altered()) return forward(x.transpose(1, 2)).transpose(1, 2);
    return kernels::linear(x, weight.squeeze(-1), optional(bias));
  }
};

class DepthwiseConv : public Block {
 public:
  DepthwiseConv(const ModuleOptions& options, const FastConformerConfig& c)
      : Block("Conv1d", options),
        weight(parameter("weight", {c.dim, 1, c.conv_kernel}, init::normal(c.std))),
        bias(c.convolution_bias ? parameter("bias", {c.dim}, init::zeros()) : Tensor()) {}
  Tensor forward(const Tensor& x) const {  // [batch, dim, frames]
    return watched(x, at::conv1d(x, weight, optional(bias), 1, weight.size(2) / 2, 1, weight.size(0)));
  }

 private:
  const Tensor weight, bias;
};

class BatchNorm : public Block {
 public:
  BatchNorm(const ModuleOptions& options, int64_t dim)
      : Block("BatchNorm1d", options),
        weight(parameter("weight", {dim}, init::ones())),
        bias(parameter("bias", {dim}, init::zeros())),
        mean(buffer("running_mean", {dim}, options.dtype, init::zeros())),
        variance(buffer("running_var", {dim}, options.dtype, init::ones())),
        batches(buffer("num_batches_tracked", {}, at::kLong, init::zeros())) {}

  Tensor forward(const Tensor& x) const {  // [batch, dim, frames]
    constexpr double kMomentum = 0.1;
    // A checkpointed layer runs twice, and takes the statistics of a batch once.
    const bool tracks = training() && !RunsAgain::active();
    if (tracks) batches.add_(1);
    const bool reads = !training() || tracks;
    return watched(x, at::batch_norm(x, weight, bias, reads ? optional(mean) : std::nullopt,
                                     reads ? optional(variance) : std::nullopt, training(), kMomentum, kEps, false));
  }

 private:
  const Tensor weight, bias, mean, variance, batches;
};

class ConvolutionModule : public Block {
 public:
  ConvolutionModule(const ModuleOptions& options, const FastConformerConfig& c)
      : Block("FastConformerConvolution", options),
        gated(*child<PointwiseConv>("pointwise_conv1", c, 2 * c.dim)),
        depthwise(*child<DepthwiseConv>("depthwise_conv", c)),
        norm(*child<BatchNorm>("norm", c.dim)),
        last(*child<PointwiseConv>("pointwise_conv2", c, c.dim)),
        activation(nn::activation(c.activation)) {}

  Tensor forward(const Tensor& input, const Tensor& valid) const {  // [batch, frames, dim]
    Tensor x = at::glu(gated.of_frames(input), -1);
    if (valid.defined()) x = x.masked_fill(valid.logical_not().unsqueeze(-1), 0);
    x = activation(norm.forward(depthwise.forward(x.transpose(1, 2))));
    return watched(input, last.of_frames(x.transpose(1, 2)));
  }

 private:
  PointwiseConv& gated;
  DepthwiseConv& depthwise;
  BatchNorm& norm;
  PointwiseConv& last;
  const nn::Activation activation;
};

bool is_dropped(double probability) { return probability > 0 && at::rand({1}).item<double>() < probability; }

}  // namespace

class FastConformerLayer : public Block {
 public:
  FastConformerLayer(const ModuleOptions& options, const FastConformerConfig& c)
      : Block("FastConformerLayer", options),
        feed_forward1(*child<FeedForward>("feed_forward1", c)),
        attention(*child<Attention>("self_attn", c)),
        convolution(*child<ConvolutionModule>("conv", c)),
        feed_forward2(*child<FeedForward>("feed_forward2", c)),
        norm_feed_forward1(*child<LayerNorm>("norm_feed_forward1", c.dim, kEps)),
        norm_attention(*child<LayerNorm>("norm_self_att", c.dim, kEps)),
        norm_convolution(*child<LayerNorm>("norm_conv", c.dim, kEps)),
        norm_feed_forward2(*child<LayerNorm>("norm_feed_forward2", c.dim, kEps)),
        norm_out(*child<LayerNorm>("norm_out", c.dim, kEps)) {}

  nn::Attended forward(const Tensor& input, const Pass& pass) const {  // [batch, frames, dim]
    Tensor x = at::add(input, feed_forward1.forward(norm_feed_forward1.forward(input)), 0.5);
    nn::Attended result = attention.forward(norm_attention.forward(x), pass);
    x = x + result.output;
    x = x + convolution.forward(norm_convolution.forward(x), pass.valid);
    x = at::add(x, feed_forward2.forward(norm_feed_forward2.forward(x)), 0.5);
    result.output = watched(input, norm_out.forward(x));
    return result;
  }

 private:
  FeedForward& feed_forward1;
  Attention& attention;
  ConvolutionModule& convolution;
  FeedForward& feed_forward2;
  LayerNorm &norm_feed_forward1, &norm_attention, &norm_convolution, &norm_feed_forward2, &norm_out;
};

FastConformer::FastConformer(const ModuleOptions& options, const Config& given)
    : Block("FastConformer", options),
      config(given),
      subsampling(*child<FastConformerSubsampling>("subsampling", config)),
      layers(*child<ModuleList<FastConformerLayer>>("layers")) {
  for (int64_t i = 0; i < config.layers; ++i) layers.add(config);
}

// Distances from `before` down to -`after`: [1, before + after + 1, dim], a sine and a cosine of each frequency.
Tensor FastConformer::positions(int64_t before, int64_t after, const Tensor& like) const {
  const at::TensorOptions real = like.options().dtype(at::kFloat);
  const Tensor frequencies =
      at::pow(at::Scalar(10000.0), at::arange(0, config.dim, 2, real) / static_cast<double>(config.dim)).reciprocal();
  const Tensor angles = at::arange(before, -after - 1, -1, real).unsqueeze(1) * frequencies;
  return at::stack({angles.sin(), angles.cos()}, -1).flatten(1).unsqueeze(0).to(like.scalar_type());
}

FastConformerOutput FastConformer::forward(const Tensor& features, const Tensor& mask, bool hidden_states,
                                           bool attentions) const {
  check(features, mask, attentions);
  Tensor lengths, valid;
  if (mask.defined()) lengths = upload(mask, features.device()).to(at::kLong).sum(-1);
  Tensor x = subsampling.forward(features, lengths);  // [batch, frames, dim]
  if (config.scale_input) x = x * std::sqrt(static_cast<double>(config.dim));
  const int64_t frames = x.size(1);
  if (mask.defined()) {
    const Tensor shorter = config.frames(lengths);
    valid = at::arange(frames, shorter.options()).unsqueeze(0) < shorter.unsqueeze(1);
  }
  int64_t before = frames - 1, after = frames - 1;
  if (config.local) {
    const int64_t step = Attention::local_step(config);
    before = std::min(before, step - 1 + config.left);
    after = std::min(after, step - 1 + config.right);
  }
  Pass pass{valid, positions(before, after, x), before, attentions};
  x = nn::drop(x, config.dropout, training());
  if (training() && config.position_dropout > 0) {
    pass.positions = nn::drop(pass.positions.expand({x.size(0), -1, -1}), config.position_dropout, true);
  }

  FastConformerOutput result;
  for (FastConformerLayer* layer : layers) {
    if (hidden_states) result.hidden_states.push_back(x);
    if (training() && is_dropped(config.layer_drop)) continue;
    nn::Attended attended;
    if (nn::should_checkpoint(*this)) {
      std::vector<Tensor> outputs =
          nn::checkpoint(*layer, {x, pass.valid, pass.positions},
                         [layer, before, attentions](const std::vector<Tensor>& in) -> std::vector<Tensor> {
                           nn::Attended again = layer->forward(in[0], {in[1], in[2], before, attentions});
                           if (!attentions) return {again.output};
                           return {again.output, again.weights};
                         });
      attended = {outputs[0], attentions ? outputs[1] : Tensor()};
    } else {
      attended = layer->forward(x, pass);
    }
    x = std::move(attended.output);
    if (attentions) result.attentions.push_back(std::move(attended.weights));
  }
  if (hidden_states) result.hidden_states.push_back(x);
  result.last_hidden_state = watched(features, std::move(x));
  result.mask = valid;
  return result;
}

void FastConformer::check(const Tensor& features, const Tensor& mask, bool attentions) const {
  TORCH_CHECK(features.dim() == 3 && features.size(0) > 0 && features.size(2) == config.mel_bins,
              "input_features must be [batch, time, ", config.mel_bins, "], as num_mel_bins says, got ",
              features.sizes());
  TORCH_CHECK(features.is_floating_point(), "input_features must have a floating-point dtype, got ",
              features.scalar_type());
  TORCH_CHECK(features.size(1) > 0, "input_features has no frames");
  TORCH_CHECK(!mask.defined() || mask.sizes().equals(features.sizes().slice(0, 2)),
              "attention_mask must have the shape ", features.sizes().slice(0, 2), " of input_features, got ",
              mask.sizes());
  TORCH_CHECK(!(attentions && config.local), "output_attentions needs self_attention_model 'rel_pos'");
}

namespace {

using FastConformerResult = std::tuple<Tensor, std::optional<Tensor>, std::vector<Tensor>, std::vector<Tensor>>;

FastConformerResult forward_fast_conformer(const c10::intrusive_ptr<Module>& self, const Tensor& features,
                                           const std::optional<Tensor>& mask, bool hidden_states, bool attentions) {
  FastConformerOutput result = network<FastConformer>(self, "fast_conformer_forward")
                                   .forward(features, mask.value_or(Tensor()), hidden_states, attentions);
  return {result.last_hidden_state, optional(result.mask), std::move(result.hidden_states),
          std::move(result.attentions)};
}

const RegisteredModule registered_fast_conformer("fast_conformer", make_module<FastConformer>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "fast_conformer_forward(__torch__.torch.classes.voxtorch.Module self, Tensor input_features, Tensor? "
      "attention_mask=None, *, bool output_hidden_states=False, bool output_attentions=False) -> (Tensor "
      "last_hidden_state, Tensor? attention_mask, Tensor[] hidden_states, Tensor[] attentions)",
      forward_fast_conformer);
}

}  // namespace voxtorch::models

// FastConformer (Rekesh et al. 2023, https://arxiv.org/abs/2305.05084), the encoder of Parakeet and Canary, with the
// names of transformers' ParakeetEncoder: log-mel frames -> depthwise convolutions that shorten time, usually by 8 ->
// Conformer blocks (Gulati et al. 2020, https://arxiv.org/abs/2005.08100) with relative positions.
#include <ATen/ops/arange.h>
#include <ATen/ops/relu.h>
#include <torch/library.h>

#include <cmath>
#include <optional>

#include "core/nn/conformer.h"
#include "core/runtime/transfers.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Conv2d;
using nn::Linear;

struct FastConformerConfig {
  explicit FastConformerConfig(const Config& config);
  // Frames that one convolution, or all, make of so many.
  Tensor shortened(const Tensor& lengths) const;
  Tensor frames(Tensor lengths) const;
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

Tensor FastConformerConfig::shortened(const Tensor& lengths) const {
  const int64_t room = (subsampling_kernel - 1) / 2 * 2 - subsampling_kernel;
  return (lengths + room).floor_divide(subsampling_stride) + 1;
}

Tensor FastConformerConfig::frames(Tensor lengths) const {
  for (int64_t i = 0; i < subsampling_layers; ++i) lengths = shortened(lengths);
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

class FastConformer : public Block, public nn::Checkpointing {
 public:
  FastConformer(const ModuleOptions& options, const Config& config);
  // features [batch, time, mel bins]; mask [batch, time], 1 for valid frames, or undefined.
  FastConformerOutput forward(const Tensor& features, const Tensor& mask, bool hidden_states, bool attentions) const;

  const FastConformerConfig config;

 private:
  void check(const Tensor& features, const Tensor& mask, bool attentions) const;

  const nn::ConformerShape shape;
  FastConformerSubsampling& subsampling;
  ModuleList<nn::EncoderLayer>& layers;
};

namespace {

std::optional<Tensor> optional(const Tensor& tensor) {
  return tensor.defined() ? std::optional<Tensor>(tensor) : std::nullopt;
}

// The activations between the convolutions have places of their own in the list, and so in the names.
class SubsamplingLayers : public Module {
 public:
  SubsamplingLayers(const ModuleOptions& options, const FastConformerConfig& c) : Module("ModuleList", options) {
    const int64_t channels = c.subsampling_channels, kernel = c.subsampling_kernel, stride = c.subsampling_stride;
    first = child<Conv2d>("0", nn::Conv2dShape{1, channels, kernel, stride}, c.std);
    for (int64_t i = 1; i < c.subsampling_layers; ++i) {
      const int64_t place = 3 * i - 1;
      depthwise.push_back(
          child<Conv2d>(std::to_string(place), nn::Conv2dShape{channels, channels, kernel, stride, channels}, c.std));
      pointwise.push_back(child<Conv2d>(std::to_string(place + 1), nn::Conv2dShape{channels, channels, 1}, c.std));
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
      if (shortens) lengths = config.shortened(lengths);
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

// The names of transformers' ParakeetEncoder.
constexpr nn::ConformerNames kNames{"norm_feed_forward1",
                                    "feed_forward1",
                                    "norm_self_att",
                                    "self_attn",
                                    "norm_conv",
                                    "conv",
                                    "norm_feed_forward2",
                                    "feed_forward2",
                                    "norm_out",
                                    "linear1",
                                    "linear2",
                                    "q_proj",
                                    "k_proj",
                                    "v_proj",
                                    "o_proj",
                                    "relative_k_proj",
                                    "bias_u",
                                    "bias_v",
                                    "norm"};

nn::ConformerShape conformer_shape(const FastConformerConfig& c) {
  return {.dim = c.dim,
          .heads = c.heads,
          .intermediate = c.intermediate,
          .kernel = c.conv_kernel,
          .activation = c.activation,
          .std = c.std,
          .convolution_std = c.std,
          .attention_bias = c.attention_bias,
          .convolution_bias = c.convolution_bias,
          .positions = "relative",
          .position_biases = init::normal(c.std),
          .local = c.local,
          .left = c.left,
          .right = c.right,
          .attention_dropout = c.attention_dropout,
          .activation_dropout = c.activation_dropout,
          .names = kNames};
}

}  // namespace

FastConformer::FastConformer(const ModuleOptions& options, const Config& given)
    : Block("FastConformer", options),
      config(given),
      shape(conformer_shape(config)),
      subsampling(*child<FastConformerSubsampling>("subsampling", config)),
      layers(*child<ModuleList<nn::EncoderLayer>>("layers")) {
  for (int64_t i = 0; i < config.layers; ++i) layers.append(c10::make_intrusive<nn::ConformerLayer>(options, shape));
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
  const auto [before, after] = nn::ConformerAttention::reach(shape, frames);
  const Tensor frequencies = nn::inverse_frequencies(config.dim, 10000, x.options());
  Tensor positions = nn::distance_sines(frequencies, before, after).to(x.scalar_type());
  x = nn::drop(x, config.dropout, training());
  if (training() && config.position_dropout > 0) {
    positions = nn::drop(positions.expand({x.size(0), -1, -1}), config.position_dropout, true);
  }
  nn::EncoderStates states =
      nn::run_layers(layers, *this, std::move(x), {valid, {}, positions, hidden_states, attentions, config.layer_drop});
  return {watched(features, std::move(states.last)), valid, std::move(states.hidden_states),
          std::move(states.attentions)};
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

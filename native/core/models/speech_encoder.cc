#include "core/models/speech_encoder.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/exp2.h>
#include <ATen/ops/glu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "core/models/speech_conformer.h"
#include "core/nn/conv.h"
#include "core/runtime/recording.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Conv1d;
using nn::GroupNorm;
using nn::LayerNorm;
using nn::Linear;
using Segments = std::optional<nn::Segments>;

namespace {

nn::SpanMasking span_masking(const Config& config, const std::string& axis, double share, int64_t min_spans) {
  return {config.probability("mask_" + axis + "_prob", share), config.integer("mask_" + axis + "_length", 10),
          config.integer("mask_" + axis + "_min_masks", min_spans)};
}

// A list for the convolutions; none where the input is spectra.
std::vector<int64_t> convolutions(const Config& config, const char* key, const std::vector<int64_t>& fallback) {
  return config.has("feature_projection_input_dim") ? std::vector<int64_t>() : config.integers(key, fallback);
}

}  // namespace

SpeechConfig::SpeechConfig(const Config& config)
    : dim(config.integer("hidden_size", 768)),
      layers(config.integer("num_hidden_layers", 12)),
      heads(config.integer("num_attention_heads", 12)),
      intermediate(config.integer("intermediate_size", 3072)),
      conv_dim(convolutions(config, "conv_dim", {512, 512, 512, 512, 512, 512, 512})),
      conv_kernel(convolutions(config, "conv_kernel", {10, 3, 3, 3, 3, 2, 2})),
      conv_stride(convolutions(config, "conv_stride", {5, 2, 2, 2, 2, 2, 2})),
      conv_bias(config.boolean("conv_bias", false)),
      group_norm(config.text("feat_extract_norm", "group") == "group"),
      projection_norm(config.boolean("feat_proj_layer_norm", true)),
      position_kernel(config.has("conv_pos_kernel_size") ? config.integer("conv_pos_kernel_size")
                                                         : config.integer("num_conv_pos_embeddings", 128)),
      position_groups(config.integer("num_conv_pos_embedding_groups", 16)),
      position_layers(config.has("conv_pos_kernel_size") ? config.integer("num_conv_pos_embeddings", 5) : 0),
      position_batch_norm(config.boolean("conv_pos_batch_norm", false)),
      zero_biases(config.has("feat_proj_layer_norm")),
      norm_first(config.boolean("do_stable_layer_norm", false)),
      eps(config.number("layer_norm_eps", 1e-5)),
      std(config.number("initializer_range", 0.02)),
      activation(config.text("hidden_act", "gelu")),
      conv_activation(config.text("feat_extract_activation", "gelu")),
      dropout(config.probability("hidden_dropout", 0.1)),
      attention_dropout(config.probability("attention_dropout", 0.1)),
      activation_dropout(config.probability("activation_dropout", 0.1)),
      projection_dropout(config.probability("feat_proj_dropout", 0.0)),
      layer_drop(config.probability("layerdrop", 0.1)),
      spec_augment(config.boolean("apply_spec_augment", true)),
      time_masking(span_masking(config, "time", 0.05, 2)),
      feature_masking(span_masking(config, "feature", 0.0, 0)),
      adapter_layers(config.boolean("add_adapter", false) ? config.integer("num_adapter_layers", 3) : 0),
      adapter_kernel(config.integer("adapter_kernel_size", 3)),
      adapter_stride(config.integer("adapter_stride", 2)),
      output_dim(config.boolean("add_adapter", false) ? config.integer("output_hidden_size", dim) : dim),
      attention_adapter(config.integer("adapter_attn_dim", 0)),
      conformer(config.has("conv_depthwise_kernel_size")),
      feature_dim(config.integer("feature_projection_input_dim", 0)),
      positions(config.text("position_embeddings_type", "")),
      left_positions(config.integer("left_max_position_embeddings", 64)),
      right_positions(config.integer("right_max_position_embeddings", 8)),
      depthwise_kernel(config.integer("conv_depthwise_kernel_size", 31)),
      rotary_base(config.number("rotary_embedding_base", 10000)),
      conv_dropout(config.probability("conformer_conv_dropout", 0.1)),
      intermediate_ffn(config.boolean("use_intermediate_ffn_before_adapter", false)),
      adapter_activation(config.text("adapter_act", "relu")),
      extra_tokens(config.integer("num_extra_tokens", 0)),
      alibi_heads(config.integer("num_alibi_heads", 0)),
      alibi_per_layer(config.boolean("learned_alibi_scale_per_layer", false)),
      alibi_per_head(config.boolean("learned_alibi_scale_per_head", true)),
      alibi_scale(config.number("alibi_scale", 1)),
      input_dropout(config.probability("prenet_dropout", dropout)),
      feed_forward_dropout(config.probability("post_mlp_drop", dropout)) {
  TORCH_CHECK(heads > 0 && dim > 0 && dim % heads == 0, "hidden_size ", dim,
              " is not divisible by num_attention_heads ", heads);
  TORCH_CHECK(feature_dim > 0 || (position_groups > 0 && dim % position_groups == 0), "hidden_size ", dim,
              " is not divisible by num_conv_pos_embedding_groups ", position_groups);
  TORCH_CHECK(layers >= 0 && intermediate > 0, "num_hidden_layers must not be negative and intermediate_size must be ",
              "positive, got ", layers, " and ", intermediate);
  TORCH_CHECK(position_kernel > 0, "num_conv_pos_embeddings and conv_pos_kernel_size must be positive, got ",
              position_kernel);
  TORCH_CHECK(position_layers > 0 || !config.has("conv_pos_kernel_size"),
              "num_conv_pos_embeddings must be positive, got ", position_layers);
  TORCH_CHECK(!config.has("feature_projection_input_dim") || feature_dim > 0,
              "feature_projection_input_dim must be positive, got ", feature_dim);
  TORCH_CHECK((feature_dim > 0 || !conv_dim.empty()) && conv_dim.size() == conv_kernel.size() &&
                  conv_dim.size() == conv_stride.size(),
              "conv_dim, conv_kernel and conv_stride must have one value for each convolution, but have ",
              conv_dim.size(), ", ", conv_kernel.size(), " and ", conv_stride.size());
  for (const auto* list : {&conv_dim, &conv_kernel, &conv_stride}) {
    for (const int64_t value : *list) {
      TORCH_CHECK(value > 0, "conv_dim, conv_kernel and conv_stride must be positive, got ", value);
    }
  }
  const std::string norm = config.text("feat_extract_norm", "group");
  TORCH_CHECK(norm == "group" || norm == "layer", "feat_extract_norm must be 'group' or 'layer', not '", norm, "'");
  for (const auto* masking : {&time_masking, &feature_masking}) {
    TORCH_CHECK(masking->length > 0, "mask_time_length and mask_feature_length must be positive, got ",
                masking->length);
  }
  TORCH_CHECK(adapter_layers >= 0 && adapter_kernel > 0 && adapter_stride > 0 && output_dim > 0,
              "num_adapter_layers must not be negative, and adapter_kernel_size, adapter_stride and output_hidden_size "
              "must be positive, got ",
              adapter_layers, ", ", adapter_kernel, ", ", adapter_stride, " and ", output_dim);
  TORCH_CHECK(attention_adapter >= 0, "adapter_attn_dim must be positive, got ", attention_adapter);
  TORCH_CHECK(attention_adapter == 0 || norm_first,
              "adapter_attn_dim needs do_stable_layer_norm: only such layers have adapters");
  TORCH_CHECK(extra_tokens >= 0 && alibi_heads >= 0 && alibi_heads <= heads,
              "num_extra_tokens must not be negative, and num_alibi_heads must be at most num_attention_heads ", heads,
              ", got ", extra_tokens, " and ", alibi_heads);
  if (conformer) check_conformer();
}

void SpeechConfig::check_conformer() const {
  const bool of_spectra = feature_dim > 0;
  const bool known = positions.empty() || positions == "relative" || positions == "rotary" ||
                     (of_spectra && positions == "relative_key");
  TORCH_CHECK(known, "position_embeddings_type must be 'relative', 'rotary'", of_spectra ? ", 'relative_key'" : "",
              " or null, not '", positions, "'");
  TORCH_CHECK(depthwise_kernel > 0 && depthwise_kernel % 2 == 1, "conv_depthwise_kernel_size must be odd, got ",
              depthwise_kernel);
  TORCH_CHECK(left_positions >= 0 && right_positions >= 0,
              "left_max_position_embeddings and right_max_position_embeddings must not be negative, got ",
              left_positions, " and ", right_positions);
  TORCH_CHECK(positions != "rotary" || (dim / heads % 2 == 0 && rotary_base > 0),
              "'rotary' needs an even number of dimensions in a head and a positive rotary_embedding_base, got ",
              dim / heads, " and ", rotary_base);
  TORCH_CHECK(!of_spectra || output_dim % heads == 0, "output_hidden_size ", output_dim,
              " is not divisible by num_attention_heads ", heads);
  TORCH_CHECK(!intermediate_ffn || adapter_layers > 0, "use_intermediate_ffn_before_adapter needs add_adapter");
}

int64_t SpeechConfig::frames(int64_t samples) const {
  for (size_t i = 0; i < conv_kernel.size(); ++i) {
    if (samples < conv_kernel[i]) return 0;
    samples = (samples - conv_kernel[i]) / conv_stride[i] + 1;
  }
  return samples;
}

int64_t SpeechConfig::receptive_field() const {
  int64_t samples = 1;
  for (size_t i = conv_kernel.size(); i-- > 0;) samples = (samples - 1) * conv_stride[i] + conv_kernel[i];
  return samples;
}

namespace {

class SpeechConvLayer : public Block {
 public:
  SpeechConvLayer(const ModuleOptions& options, const SpeechConfig& c, size_t i)
      : Block("SpeechConvLayer", options),
        activation(nn::activation(c.conv_activation)),
        conv(*child<Conv1d>("conv", nn::Conv1dShape{i == 0 ? 1 : c.conv_dim[i - 1], c.conv_dim[i], c.conv_kernel[i],
                                                    c.conv_stride[i], c.conv_bias, 1, 0, c.zero_biases})),
        channel_norm(c.group_norm && i == 0 ? child<GroupNorm>("layer_norm", c.conv_dim[i], c.conv_dim[i]) : nullptr),
        frame_norm(c.group_norm ? nullptr : child<LayerNorm>("layer_norm", c.conv_dim[i], 1e-5)) {}

  // [batch, channels, time]; `samples` as SpeechEncoder::extract has it, for the first layer.
  Tensor forward(const Tensor& x, const Tensor& samples) const {
    if (channel_norm != nullptr) return watched(x, activation(normalised(x, samples, false)));
    if (frame_norm == nullptr) return watched(x, activation(conv.forward(x)));
    const Tensor normed = frame_norm->forward(conv.forward(x).transpose(1, 2).contiguous());
    return watched(x, activation(normed).transpose(1, 2));
  }
  // The same with time first, [batch, time, channels], where nothing is altered; the first layer takes [batch, 1,
  // samples].
  Tensor forward_frames(const Tensor& x, const Tensor& samples) const {
    if (channel_norm != nullptr) return activation(normalised(x, samples, true));
    const Tensor frames = conv.weight.size(1) == 1 ? x.transpose(1, 2) : x;
    if (frame_norm == nullptr) return conv.forward_frames(frames, &activation);
    return activation(frame_norm->forward(conv.forward_frames(frames, nullptr).contiguous()));
  }
  // The two halves of a chain whose activations are computed twice rather than kept: this layer without its activation,
  // of what the layer before gave without its own.
  Tensor first_without_activation(const Tensor& x, const Tensor& samples) const { return normalised(x, samples, true); }
  Tensor of_gelu(const Tensor& frames) const { return conv.forward_of_gelu(frames); }
  bool is_plain() const { return channel_norm == nullptr && frame_norm == nullptr; }
  bool has_channel_norm() const { return channel_norm != nullptr; }

  bool altered() const {
    return hooked() || conv.altered() || (channel_norm != nullptr && channel_norm->hooked()) ||
           (frame_norm != nullptr && frame_norm->hooked());
  }
  c10::ScalarType dtype() const { return conv.weight.scalar_type(); }
  const nn::Activation activation;

 private:
  Tensor normalised(const Tensor& x, const Tensor& samples, bool frames) const {
    Tensor windows;
    if (samples.defined()) windows = ((samples - conv.weight.size(2)).floor_divide(conv.stride) + 1).clamp_min(0);
    return nn::conv_channel_norm(x.squeeze(1), conv, *channel_norm, frames, windows);
  }

  Conv1d& conv;
  // Over the whole time axis: unless the number of samples is given, padding counts too, and with it a clip's features
  // depend on how far it was padded.
  const GroupNorm* channel_norm;
  const LayerNorm* frame_norm;
};

}  // namespace

class SpeechFeatureExtractor : public Block {
 public:
  SpeechFeatureExtractor(const ModuleOptions& options, const SpeechConfig& c)
      : Block("SpeechFeatureExtractor", options), layers(*child<ModuleList<SpeechConvLayer>>("conv_layers")) {
    for (size_t i = 0; i < c.conv_dim.size(); ++i) layers.add(c, i);
  }

  Tensor forward(const Tensor& values, const Tensor& samples = {}) const {  // [batch, samples]
    Tensor x = values.to(layers[0].dtype()).unsqueeze(1);
    if (forgets_activations(x)) {
      x = layers[0].first_without_activation(x, samples);
      for (size_t i = 1; i < layers.size(); ++i) x = layers[i].of_gelu(x);
      return watched(values, layers[0].activation(std::move(x)));
    }
    const bool frames_first = values.is_cpu() && is_inference() && !altered();
    for (const SpeechConvLayer* layer : layers) {
      x = frames_first ? layer->forward_frames(x, samples) : layer->forward(x, samples);
    }
    return watched(values, frames_first ? x : x.transpose(1, 2));  // [batch, frames, channels]
  }

 private:
  bool altered() const {
    return std::any_of(layers.begin(), layers.end(), [](const SpeechConvLayer* layer) { return layer->altered(); });
  }

  // Training on the CPU: the activations of the first layers would take more memory than all else.
  bool forgets_activations(const Tensor& values) const {
    return values.is_cpu() && values.scalar_type() == at::kFloat && !is_inference() && !altered() &&
           layers[0].has_channel_norm() && layers[0].activation.is_exact_gelu() &&
           std::all_of(layers.begin() + 1, layers.end(),
                       [](const SpeechConvLayer* layer) { return layer->is_plain(); });
  }

  ModuleList<SpeechConvLayer>& layers;
};

class SpeechFeatureProjection : public Block {
 public:
  SpeechFeatureProjection(const ModuleOptions& options, const SpeechConfig& c)
      : Block("SpeechFeatureProjection", options),
        norm(c.projection_norm ? child<LayerNorm>("layer_norm", c.projected_dim(), c.eps) : nullptr),
        projection(*child<Linear>("projection", c.projected_dim(), c.dim,
                                  c.zero_biases ? init::normal(c.std) : init_of(c),
                                  c.zero_biases ? init::zeros() : init_of(c))),
        dropout(c.projection_dropout) {}

  c10::ScalarType dtype() const { return projection.weight.scalar_type(); }
  Tensor normalise(const Tensor& features) const {
    return norm == nullptr ? features : norm->forward(features.contiguous());
  }
  Tensor project(const Tensor& normalised) const {  // [batch, frames, dim]
    return watched(normalised, nn::drop(projection.forward(normalised), dropout, training()));
  }

 private:
  static Init init_of(const SpeechConfig& c) {
    return init::uniform(std::sqrt(1.0 / static_cast<double>(c.projected_dim())));
  }

  const LayerNorm* norm;
  Linear& projection;
  const double dropout;
};

namespace {

// A convolution over time that keeps its length, as wide as the input.
nn::Conv1dShape same_length(const SpeechConfig& c) {
  return {c.dim, c.dim, c.position_kernel, 1, true, c.position_groups, c.position_kernel / 2, true};
}

// [batch, dim, time] -> the same; an even kernel gives one step more.
Tensor same_conv(const Conv1d& conv, const Tensor& steps) { return conv.forward(steps).narrow(2, 0, steps.size(2)); }

class SpeechPositionLayer : public Block {
 public:
  SpeechPositionLayer(const ModuleOptions& options, const SpeechConfig& c)
      : Block("SpeechPositionLayer", options),
        conv(*child<Conv1d>("conv", same_length(c))),
        activation(nn::activation(c.conv_activation)) {}

  Tensor forward(const Tensor& steps) const {  // [batch, dim, time]
    const Tensor convolved = same_conv(conv, steps).transpose(1, 2);
    const Tensor normed = at::layer_norm(convolved, {convolved.size(-1)}, {}, {}, 1e-5);
    return watched(steps, activation(normed.transpose(1, 2)));
  }

 private:
  Conv1d& conv;
  const nn::Activation activation;
};

class SpeechPositions : public Block {
 public:
  SpeechPositions(const ModuleOptions& options, const SpeechConfig& c)
      : Block("SpeechPositions", options),
        layers(c.position_layers > 0 ? child<ModuleList<SpeechPositionLayer>>("layers") : nullptr),
        plain(c.position_batch_norm ? child<Conv1d>("conv", same_length(c)) : nullptr),
        batch_norm(c.position_batch_norm ? child<nn::BatchNorm1d>("batch_norm", c.dim) : nullptr),
        conv(layers == nullptr && plain == nullptr
                 ? child<nn::NormedConv1d>("conv", c.dim, c.position_kernel, c.position_groups)
                 : nullptr),
        activation(nn::activation(c.conv_activation)) {
    for (int64_t i = 0; i < c.position_layers; ++i) layers->add(c);
  }

  // With a mask, bool [batch, time], each convolution sees zeros beyond the end, as it does of a clip alone.
  Tensor forward(const Tensor& x, const Segments& segments, const Tensor& mask = {}) const {
    const Tensor weight = conv != nullptr ? conv->weight() : Tensor();
    const Tensor steps = x.transpose(1, 2);
    if (!segments) return watched(x, positions(steps, weight, mask).transpose(1, 2));
    if (!segments->is_on_cpu() && conv != nullptr) {
      // Each with zeros after it, as beyond every end: one convolution for all.
      const Tensor apart = segments->spread(x).masked_fill(segments->spread_mask().logical_not().unsqueeze(-1), 0);
      return watched(x, segments->join(positions(apart.transpose(1, 2), weight).transpose(1, 2)));
    }
    std::vector<Tensor> each = segments->split(steps, 2);
    for (Tensor& sequence : each) sequence = positions(sequence, weight);
    return watched(x, at::cat(each, 2).transpose(1, 2));
  }

 private:
  Tensor positions(const Tensor& steps, const Tensor& weight, const Tensor& mask = {}) const {  // [batch, dim, time]
    if (conv != nullptr) return activation(conv->forward(steps, weight));
    if (plain != nullptr) return activation(same_conv(*plain, batch_norm->forward(steps)));
    Tensor x = steps;
    for (const SpeechPositionLayer* layer : *layers) {
      x = layer->forward(x);
      if (mask.defined()) x = x.masked_fill(mask.logical_not().unsqueeze(1), 0);
    }
    return x;
  }

  ModuleList<SpeechPositionLayer>* const layers;  // Data2VecAudio
  const Conv1d* const plain;                      // Hubert with a batch norm
  const nn::BatchNorm1d* const batch_norm;
  const nn::NormedConv1d* const conv;  // all others
  const nn::Activation activation;
};

// What a language changes in a layer of MMS (Pratap et al. 2023, https://arxiv.org/abs/2305.13516): added to its
// output.
class SpeechAttentionAdapter : public Block {
 public:
  SpeechAttentionAdapter(const ModuleOptions& options, const SpeechConfig& c)
      : Block("SpeechAttentionAdapter", options),
        norm(*child<LayerNorm>("norm", c.dim, 1e-5)),
        down(*child<Linear>("linear_1", c.dim, c.attention_adapter, true, c.std)),
        up(*child<Linear>("linear_2", c.attention_adapter, c.dim, true, c.std)) {}

  Tensor forward(const Tensor& x) const { return watched(x, up.forward(down.forward(norm.forward(x), relu))); }

 private:
  const nn::Activation relu = nn::activation("relu");
  LayerNorm& norm;
  Linear &down, &up;
};

class SpeechAttentionLayer : public nn::EncoderLayer {
 public:
  SpeechAttentionLayer(const ModuleOptions& options, const SpeechConfig& c, const MakeAttention& make, int64_t i)
      : EncoderLayer("SpeechLayer", options),
        attention(*adopt("attention", make(options, c, i))),
        norm(*child<LayerNorm>("layer_norm", c.dim, c.eps)),
        feed_forward(*child<nn::FeedForward>("feed_forward", c.feed_forward(c.dim, c.activation))),
        final_norm(*child<LayerNorm>("final_layer_norm", c.dim, c.eps)),
        adapter(c.attention_adapter > 0 ? child<SpeechAttentionAdapter>("adapter_layer", c) : nullptr),
        norm_first(c.norm_first),
        dropout(c.dropout) {}

  nn::Attended forward(const Tensor& x, const Tensor& mask, const Segments& segments, const Tensor& relative,
                       bool with_weights) const override {
    const Tensor seen = norm_first ? norm.forward(x) : x;
    nn::Attended result = segments ? nn::Attended{attention.forward_each(seen, *segments, relative), Tensor()}
                                   : attention.forward(seen, mask, relative, with_weights);
    const Tensor attended = x + nn::drop(attention.watched(seen, result.output), dropout, training());
    if (norm_first) {
      result.output = feed_forward.forward(final_norm.forward(attended), attended);
    } else {
      const Tensor normed = norm.forward(attended);
      result.output = final_norm.forward(feed_forward.forward(normed, normed));
    }
    if (adapter != nullptr) result.output = result.output + adapter->forward(result.output);
    result.output = watched(x, std::move(result.output));
    return result;
  }

  Tensor relative_bias(int64_t time) const override { return attention.relative_bias(time); }

 private:
  SpeechAttention& attention;
  LayerNorm& norm;
  nn::FeedForward& feed_forward;
  LayerNorm& final_norm;
  SpeechAttentionAdapter* const adapter;
  const bool norm_first;
  const double dropout;
};

}  // namespace

Tensor alibi_biases(const Tensor& slopes, int64_t time, int64_t extra) {
  const Tensor steps = at::arange(time - extra, slopes.options());
  const Tensor distances = at::constant_pad_nd((steps.unsqueeze(0) - steps.unsqueeze(1)).abs(), {extra, 0, extra, 0});
  return -slopes.view({-1, 1, 1}) * distances;
}

namespace {

// A geometric series for a power of 2; for other numbers of heads, every second one of twice the power is added.
Tensor alibi_slopes(int64_t heads, const at::TensorOptions& options) {
  int64_t power = 1;
  while (2 * power <= heads) power *= 2;
  const double step = -8.0 / static_cast<double>(power);
  const Tensor slopes = at::exp2(at::arange(1, power + 1, options) * step);
  if (power == heads) return slopes;
  return at::cat({slopes, at::exp2(at::arange(1, 2 * (heads - power), 2, options) * (step / 2))});
}

// The first is 0 and the others are random, as in data2vec 2.0.
void fill_extra_tokens(const Tensor& tokens) {
  tokens.normal_();
  tokens.narrow(1, 0, 1).zero_();
}

}  // namespace

class SpeechTransformer : public Block, public nn::Checkpointing {
 public:
  SpeechTransformer(const ModuleOptions& options, const SpeechConfig& c, const MakeAttention& attention)
      : Block("SpeechTransformer", options),
        positions(c.feature_dim > 0 ? nullptr : child<SpeechPositions>("pos_conv_embed", c)),
        norm(c.feature_dim > 0 ? nullptr : child<LayerNorm>("layer_norm", c.dim, c.eps)),
        layers(*child<ModuleList<nn::EncoderLayer>>("layers")),
        extra_tokens(c.extra_tokens > 0 ? parameter("extra_tokens", {1, c.extra_tokens, c.dim}, fill_extra_tokens)
                                        : Tensor()),
        alibi_scale(c.alibi_heads > 0
                        ? parameter("alibi_scale",
                                    {c.alibi_per_layer ? c.layers : 1, 1, c.alibi_per_head ? c.alibi_heads : 1, 1, 1},
                                    init::constant(c.alibi_scale))
                        : Tensor()),
        heads(c.heads),
        alibi_heads(c.alibi_heads),
        conformer_positions(c.conformer ? child<ConformerPositions>("embed_positions", c) : nullptr),
        norm_first(c.norm_first || c.conformer),
        dropout(c.input_dropout),
        layer_drop(c.layer_drop) {
    for (int64_t i = 0; i < c.layers; ++i) {
      if (c.conformer) {
        layers.append(make_conformer_layer(options, c));
      } else {
        layers.append(c10::make_intrusive<SpeechAttentionLayer>(options, c, attention, i));
      }
    }
  }

  // x [batch, frames, dim], mask bool [batch, frames] or undefined. With segments x is [1, total, dim], and neither a
  // mask nor attentions are possible.
  SpeechOutput forward(const Tensor& input, const Tensor& given_mask, bool hidden_states, bool attentions,
                       const Segments& segments = std::nullopt) const {
    Tensor x = input, mask = given_mask;
    if (mask.defined()) x = x.masked_fill(mask.logical_not().unsqueeze(-1), 0);
    // Files of Wav2Vec2Conformer have the convolution for positions, but the published network does not compute it.
    if (conformer_positions == nullptr) x = x + positions->forward(x, segments, alibi_heads > 0 ? mask : Tensor());
    const int64_t extra = extra_tokens.defined() ? extra_tokens.size(1) : 0;
    if (extra > 0) {
      x = at::cat({extra_tokens.expand({x.size(0), -1, -1}), x}, 1);
      if (mask.defined()) mask = at::constant_pad_nd(mask, {extra, 0}, true);
    }
    if (!norm_first) x = norm->forward(x);
    x = nn::drop(x, dropout, training());
    const int64_t longest = segments ? segments->longest() : x.size(1);
    nn::EncoderPass pass{mask, segments, {}, hidden_states, attentions, layer_drop};
    if (conformer_positions != nullptr) {
      pass.relative = conformer_positions->forward(longest, x.options());
    } else if (alibi_scale.defined()) {
      const Tensor slopes = scaled_slopes();  // [layers or 1, heads]
      pass.relative = slopes.size(0) > 1 ? slopes : alibi_biases(slopes[0], longest, extra);
    } else if (layers.size() > 0) {
      pass.relative = layers[0].relative_bias(longest);
      // The layer that the others have their bias from is never skipped.
      pass.keeps_first = pass.relative.defined();
    }
    nn::EncoderStates states = nn::run_layers(layers, *this, std::move(x), pass);
    if (extra > 0) {
      const auto frames = [&](Tensor& all) { all = all.narrow(1, extra, all.size(1) - extra); };
      frames(states.last);
      for (Tensor& all : states.hidden_states) frames(all);
    }
    return {watched(input, norm_first && norm != nullptr ? norm->forward(states.last) : states.last),
            {},
            std::move(states.hidden_states),
            std::move(states.attentions)};
  }

 private:
  Tensor scaled_slopes() const {
    const bool is_half = at::isReducedFloatingType(alibi_scale.scalar_type());
    const Tensor scale = (is_half ? alibi_scale.to(at::kFloat) : alibi_scale).clamp_min(0).flatten(1);
    const Tensor slopes = alibi_slopes(alibi_heads, scale.options().requires_grad(false));
    return at::constant_pad_nd(scale * slopes, {0, heads - alibi_heads});
  }

  const SpeechPositions* const positions;  // null with spectra, as is the norm
  const LayerNorm* const norm;
  ModuleList<nn::EncoderLayer>& layers;
  const Tensor extra_tokens, alibi_scale;
  const int64_t heads, alibi_heads;
  const ConformerPositions* const conformer_positions;
  const bool norm_first;
  const double dropout, layer_drop;
};

namespace {

class SpeechAdapterLayer : public Block {
 public:
  SpeechAdapterLayer(const ModuleOptions& options, const SpeechConfig& c)
      : Block("SpeechAdapterLayer", options),
        conv(*child<Conv1d>(
            "conv", nn::Conv1dShape{c.output_dim, 2 * c.output_dim, c.adapter_kernel, c.adapter_stride, true})) {}

  Tensor forward(const Tensor& x) const {  // [batch, dim, time] -> [batch, dim, shorter]
    return watched(x, at::glu(conv.forward(at::constant_pad_nd(x, {1, 1})), 1));
  }

 private:
  Conv1d& conv;
};

}  // namespace

// Between the network and a decoder that wants fewer frames (Babu et al. 2021, https://arxiv.org/abs/2111.09296).
class SpeechAdapter : public Block {
 public:
  SpeechAdapter(const ModuleOptions& options, const SpeechConfig& c)
      : Block("SpeechAdapter", options),
        projection(c.output_dim != c.dim ? child<Linear>("proj", c.dim, c.output_dim, true, c.std) : nullptr),
        norm(c.output_dim != c.dim ? child<LayerNorm>("proj_layer_norm", c.output_dim, 1e-5) : nullptr),
        layers(*child<ModuleList<SpeechAdapterLayer>>("layers")),
        layer_drop(c.layer_drop) {
    for (int64_t i = 0; i < c.adapter_layers; ++i) layers.add(c);
  }

  Tensor forward(const Tensor& frames) const {  // [batch, frames, dim] -> [batch, fewer, output_dim]
    Tensor x = projection != nullptr ? norm->forward(projection->forward(frames)) : frames;
    x = x.transpose(1, 2);
    for (const SpeechAdapterLayer* layer : layers) {
      if (training() && nn::is_dropped(layer_drop)) continue;
      x = layer->forward(x);
    }
    return watched(frames, x.transpose(1, 2));
  }

 private:
  Linear* const projection;
  LayerNorm* const norm;
  ModuleList<SpeechAdapterLayer>& layers;
  const double layer_drop;
};

SpeechEncoder::SpeechEncoder(std::string kind, const ModuleOptions& options, const SpeechConfig& c,
                             const MakeAttention& attention)
    : Block(std::move(kind), options),
      config(c),
      masked_spec_embed(
          c.time_masking.probability > 0 || c.feature_masking.probability > 0
              ? parameter("masked_spec_embed", {c.dim}, [](const Tensor& tensor) { tensor.uniform_(0, 1); })
              : Tensor()),
      feature_extractor(c.feature_dim > 0 ? nullptr : child<SpeechFeatureExtractor>("feature_extractor", c)),
      feature_projection(*child<SpeechFeatureProjection>("feature_projection", c)),
      encoder(*child<SpeechTransformer>("encoder", c, attention)),
      intermediate_ffn(c.intermediate_ffn ? child<nn::FeedForward>("intermediate_ffn", c.feed_forward(c.dim, "relu"))
                                          : nullptr),
      adapter(c.has_adapter() && c.feature_dim == 0 ? child<SpeechAdapter>("adapter", c) : nullptr),
      conformer_adapter(c.has_adapter() && c.feature_dim > 0 ? child<ConformerAdapter>("adapter", c) : nullptr) {}

namespace {

// Frames of each row, [batch]. A row too short for a frame counts as one frame, so that its attention has a key.
Tensor frame_lengths(const Tensor& mask, const SpeechConfig& config) {
  Tensor lengths = mask.to(at::kLong).sum(-1);
  for (size_t i = 0; i < config.conv_kernel.size(); ++i) {
    lengths = (lengths - config.conv_kernel[i]).floor_divide(config.conv_stride[i]) + 1;
  }
  return lengths.clamp_min(1);
}

}  // namespace

SpeechOutput SpeechEncoder::forward(const SpeechInputs& inputs, bool hidden_states, bool attentions) const {
  check(inputs);
  const Tensor features =
      feature_projection.normalise(feature_extractor != nullptr ? feature_extractor->forward(inputs.values)
                                                                : inputs.values.to(feature_projection.dtype()));
  Tensor lengths, mask;
  if (inputs.mask.defined()) {
    lengths = frame_lengths(inputs.mask, config);
    mask = config.feature_dim > 0 ? inputs.mask.to(at::kBool)
                                  : at::arange(features.size(1), lengths.options()).unsqueeze(0) < lengths.unsqueeze(1);
    // [batch, frames]; a row of padding alone is attended to, so that its states are finite.
    if (config.feature_dim > 0) mask = mask.logical_or(mask.any(1, true).logical_not());
    mask = nn::mask_for(mask, features.device());
  }
  const Tensor x = augment(feature_projection.project(features), inputs.time_mask, lengths);
  SpeechOutput result = encoder.forward(x, mask, hidden_states, attentions);
  Tensor& states = result.last_hidden_state;
  if (intermediate_ffn != nullptr) states = states + 0.5 * intermediate_ffn->forward(states);
  if (adapter != nullptr) states = adapter->forward(states);
  if (conformer_adapter != nullptr) states = conformer_adapter->forward(states, mask);
  result.last_hidden_state = watched(inputs.values, std::move(result.last_hidden_state));
  result.extract_features = features;
  result.mask = mask;
  return result;
}

Tensor SpeechEncoder::extract(const Tensor& values, const Tensor& samples) const {
  return feature_extractor->forward(values, samples);
}

Tensor SpeechEncoder::project(const Tensor& features) const {
  return feature_projection.project(feature_projection.normalise(features));
}

SpeechOutput SpeechEncoder::transform(const Tensor& x, const Tensor& mask, bool hidden_states, bool attentions,
                                      bool skips_padding) const {
  const Segments segments = skips_padding && !attentions ? nn::Segments::of(mask, x.device()) : std::nullopt;
  SpeechOutput output = segments ? encoder.forward(segments->pack(x), {}, hidden_states, false, segments)
                                 : encoder.forward(x, nn::mask_for(mask, x.device()), hidden_states, attentions);
  if (segments) {
    output.last_hidden_state = segments->pad(output.last_hidden_state);
    for (Tensor& states : output.hidden_states) states = segments->pad(states);
  }
  output.last_hidden_state = watched(x, std::move(output.last_hidden_state));
  return output;
}

void SpeechEncoder::check(const SpeechInputs& inputs) const {
  const Tensor& values = inputs.values;
  if (config.feature_dim > 0) {
    TORCH_CHECK(values.dim() == 3 && values.size(0) > 0 && values.size(1) > 0 && values.size(2) == config.feature_dim,
                "input_features must be [batch, time, ", config.feature_dim, "], got ", values.sizes());
  } else {
    TORCH_CHECK(values.dim() == 2 && values.size(0) > 0, "input_values must be [batch, samples], got ", values.sizes());
  }
  const char* const name = config.feature_dim > 0 ? "input_features" : "input_values";
  TORCH_CHECK(values.is_floating_point(), name, " must have a floating-point dtype, got ", values.scalar_type());
  TORCH_CHECK(config.frames(values.size(1)) > 0, name, " has a length of ", values.size(1),
              " samples, but the convolutions need at least ", config.receptive_field(), "; pad it with zeros");
  TORCH_CHECK(!inputs.mask.defined() || inputs.mask.sizes().equals(values.sizes().slice(0, 2)),
              "attention_mask must have the shape ", values.sizes().slice(0, 2), " of ", name, ", got ",
              inputs.mask.sizes());
  if (!inputs.time_mask.defined()) return;
  TORCH_CHECK(config.spec_augment && masked_spec_embed.defined(),
              "mask_time_indices needs a network whose configuration has apply_spec_augment and a mask_time_prob "
              "above 0");
  const int64_t frames = config.frames(values.size(1));
  TORCH_CHECK(
      inputs.time_mask.dim() == 2 && inputs.time_mask.size(0) == values.size(0) && inputs.time_mask.size(1) == frames,
      "mask_time_indices must have the shape [", values.size(0), ", ", frames, "] of the frames, got ",
      inputs.time_mask.sizes());
}

Tensor SpeechEncoder::augment(const Tensor& input, const Tensor& given, const Tensor& lengths) const {
  if (!config.spec_augment) return input;
  Tensor x = input;
  Tensor in_time = given.defined() ? given.to(at::kBool) : given;
  if (!in_time.defined() && training() && config.time_masking.probability > 0) {
    in_time = nn::draw_spans(x.size(0), x.size(1), config.time_masking, lengths, x.device());
  }
  if (in_time.defined()) x = at::where(in_time.unsqueeze(-1), masked_spec_embed.to(x.scalar_type()), x);
  if (training() && config.feature_masking.probability > 0) {
    const Tensor of_features = nn::draw_spans(x.size(0), x.size(2), config.feature_masking, {}, x.device());
    x = x.masked_fill(of_features.unsqueeze(1), 0);
  }
  return x;
}

SpeechResult speech_forward(const SpeechEncoder& model, const Tensor& values, const std::optional<Tensor>& mask,
                            const std::optional<Tensor>& time_mask, bool hidden_states, bool attentions) {
  SpeechOutput result =
      model.forward({values, mask.value_or(Tensor()), time_mask.value_or(Tensor())}, hidden_states, attentions);
  return {result.last_hidden_state, result.extract_features, std::move(result.hidden_states),
          std::move(result.attentions)};
}

}  // namespace voxtorch::models

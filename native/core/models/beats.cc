// BEATs (Chen et al. 2022, https://arxiv.org/abs/2212.09058) with the names of its published checkpoints: patches of a
// filter bank's image -> transformer with a gated bias of relative positions -> predictor of audio classes.
#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/module.h"
#include "core/nn/checkpoint.h"
#include "core/nn/conv.h"
#include "core/nn/embedding.h"
#include "core/nn/linear.h"
#include "core/nn/norm.h"
#include "core/nn/relative_positions.h"
#include "core/runtime/transfers.h"

namespace voxtorch::models {

using at::Tensor;
using nn::DistanceBuckets;
using nn::Embedding;
using nn::LayerNorm;
using nn::Linear;

struct BeatsConfig {
  explicit BeatsConfig(const Config& config);

  int64_t patch, embed_dim;
  bool conv_bias;
  int64_t layers, dim, intermediate, heads;
  std::string activation;
  bool norm_first, deep_norm;
  double dropout, attention_dropout, activation_dropout, layer_drop, input_dropout;
  int64_t position_kernel, position_groups;
  bool relative_positions, gated;
  int64_t buckets, farthest;
  double gradient_decay;  // what each layer's input passes back of its gradient
  bool has_predictor;
  double predictor_dropout;
  int64_t classes;
};

struct BeatsInputs {
  at::Tensor fbank;  // [batch, frames, bands], normalized
  // Valid frames of each row; undefined: all. What is beyond takes no part in anything, and its outputs are 0.
  std::optional<std::vector<int64_t>> lengths;
  // In their place, the published way: bool [batch, n], true for padding, of which groups become patches. A patch is
  // padding where all of its group is, so a few patches of padding take part.
  at::Tensor padding_mask;
};

struct BeatsOutput {
  at::Tensor last_hidden_state;           // [batch, patches, dim], the bands of a block of time next to each other
  at::Tensor padding_mask;                // bool [batch, patches], true for padding; undefined where all are valid
  std::vector<at::Tensor> hidden_states;  // the first layer's input and each layer's output, where asked for
  std::vector<at::Tensor> attentions;     // [batch, heads, patches, patches] per layer, where asked for
};

class BeatsPatches;
class BeatsTransformer;

class Beats : public Module {
 public:
  Beats(const ModuleOptions& options, const Config& config);
  BeatsOutput forward(const BeatsInputs& inputs, bool hidden_states = false, bool attentions = false) const;
  // The mean over the valid patches of the predictor's output, [batch, classes].
  at::Tensor classify(const BeatsInputs& inputs) const;

  const BeatsConfig config;

 private:
  at::Tensor padding_of_patches(const BeatsInputs& inputs, int64_t patches) const;
  // Whether anything here learns: a frozen network drops nothing, whatever mode a larger one has put it in.
  bool learns() const;

  BeatsPatches& patch_embedding;
  nn::LayerNorm& layer_norm;
  nn::Linear* const post_extract_proj;  // null where embed_dim is the transformer's
  BeatsTransformer& encoder;
  nn::Linear* const predictor;  // null where the network was not fine-tuned
};

namespace {

constexpr double kEps = 1e-5;
constexpr double kStd = 0.02;

}  // namespace

BeatsConfig::BeatsConfig(const Config& config)
    : patch(config.integer("input_patch_size", 16)),
      embed_dim(config.integer("embed_dim", 512)),
      conv_bias(config.boolean("conv_bias", false)),
      layers(config.integer("encoder_layers", 12)),
      dim(config.integer("encoder_embed_dim", 768)),
      intermediate(config.integer("encoder_ffn_embed_dim", 3072)),
      heads(config.integer("encoder_attention_heads", 12)),
      activation(config.text("activation_fn", "gelu")),
      norm_first(config.boolean("layer_norm_first", false)),
      deep_norm(config.boolean("deep_norm", false)),
      dropout(config.probability("dropout", 0.1)),
      attention_dropout(config.probability("attention_dropout", 0.1)),
      activation_dropout(config.probability("activation_dropout", 0)),
      layer_drop(config.probability("encoder_layerdrop", 0)),
      input_dropout(config.probability("dropout_input", 0)),
      position_kernel(config.integer("conv_pos", 128)),
      position_groups(config.integer("conv_pos_groups", 16)),
      relative_positions(config.boolean("relative_position_embedding", false)),
      gated(config.boolean("gru_rel_pos", false)),
      buckets(config.integer("num_buckets", 320)),
      farthest(config.integer("max_distance", 1280)),
      gradient_decay(config.number("layer_wise_gradient_decay_ratio", 1)),
      has_predictor(config.boolean("finetuned_model", false)),
      predictor_dropout(config.probability("predictor_dropout", 0.1)),
      classes(config.integer("predictor_class", 527)) {
  TORCH_CHECK(patch > 0, "input_patch_size must be positive, got ", patch);
  TORCH_CHECK(heads > 0 && dim > 0 && dim % heads == 0, "encoder_embed_dim ", dim,
              " is not divisible by encoder_attention_heads ", heads);
  TORCH_CHECK(position_groups > 0 && dim % position_groups == 0, "encoder_embed_dim ", dim,
              " is not divisible by conv_pos_groups ", position_groups);
  TORCH_CHECK(layers >= 0 && intermediate > 0 && embed_dim > 0 && classes > 0,
              "encoder_layers must not be negative and encoder_ffn_embed_dim, embed_dim and predictor_class must be "
              "positive, got ",
              layers, ", ", intermediate, ", ", embed_dim, " and ", classes);
  TORCH_CHECK(position_kernel > 0, "conv_pos must be positive, got ", position_kernel);
  TORCH_CHECK(!(deep_norm && norm_first), "deep_norm and layer_norm_first exclude each other");
  TORCH_CHECK(std::isfinite(gradient_decay), "layer_wise_gradient_decay_ratio must be a finite number, got ",
              gradient_decay);
  if (relative_positions) DistanceBuckets{buckets, farthest}.check("num_buckets", "max_distance");
}

// A square convolution whose stride is its size.
class BeatsPatches : public Block {
 public:
  BeatsPatches(const ModuleOptions& options, const BeatsConfig& c)
      : Block("Conv2d", options),
        weight(parameter("weight", {c.embed_dim, 1, c.patch, c.patch}, init_of(c))),
        bias(c.conv_bias ? parameter("bias", {c.embed_dim}, init_of(c)) : Tensor()),
        patch(c.patch) {}

  Tensor forward(const Tensor& fbank) const {  // [batch, frames, bands]
    const std::optional<Tensor> shift = bias.defined() ? std::optional<Tensor>(bias) : std::nullopt;
    const Tensor blocks = at::conv2d(fbank.to(weight.scalar_type()).unsqueeze(1), weight, shift, {patch, patch});
    return watched(fbank, blocks.flatten(2).transpose(1, 2));  // [batch, frames / patch * bands / patch, embed_dim]
  }

 private:
  static Init init_of(const BeatsConfig& c) { return init::uniform(1.0 / static_cast<double>(c.patch)); }

  const Tensor weight;  // [embed_dim, 1, patch, patch]
  const Tensor bias;    // [embed_dim]; undefined without
  const int64_t patch;
};

namespace {

// What one pass hands to each layer.
struct Pass {
  Tensor mask;      // bool [batch, patches], true for what is attended to; undefined: all
  Tensor relative;  // [heads, 2 * patches - 1]; undefined: none
  bool training;
  bool attentions;
};

// As published: the deeper the network, the smaller what each layer adds at first.
Init weight_init(const BeatsConfig& c, int64_t in, int64_t out, bool shrinks) {
  if (!c.deep_norm) return init::normal(kStd);
  const double gain = shrinks ? std::pow(8.0 * static_cast<double>(c.layers), -0.25) : 1;
  return init::normal(gain * std::sqrt(2.0 / static_cast<double>(in + out)));
}

class BeatsAttention : public Block {
 public:
  BeatsAttention(const ModuleOptions& options, const BeatsConfig& c, int64_t layer)
      : Block("BeatsAttention", options),
        gate_scale(c.gated ? parameter("grep_a", {1, c.heads, 1, 1}, init::ones()) : Tensor()),
        biases(c.relative_positions && layer == 0
                   ? child<Embedding>("relative_attention_bias", c.buckets, c.heads, -1, kStd)
                   : nullptr),
        key(*child<Linear>("k_proj", c.dim, c.dim, weight_init(c, c.dim, c.dim, false), init::zeros())),
        value(*child<Linear>("v_proj", c.dim, c.dim, weight_init(c, c.dim, c.dim, true), init::zeros())),
        query(*child<Linear>("q_proj", c.dim, c.dim, weight_init(c, c.dim, c.dim, false), init::zeros())),
        output(*child<Linear>("out_proj", c.dim, c.dim, weight_init(c, c.dim, c.dim, true), init::zeros())),
        gates(c.gated ? child<Linear>("grep_linear", c.dim / c.heads, 2 * nn::kGateWidth, true, kStd) : nullptr),
        buckets{c.buckets, c.farthest},
        heads(c.heads),
        dropout(c.attention_dropout) {}

  // The first layer's serves all: [heads, 2 * time - 1].
  Tensor relative_bias(int64_t time) const {
    if (biases == nullptr) return {};
    return biases->forward(buckets.of(time, biases->weight.device())).transpose(0, 1).contiguous();
  }

  nn::Attended forward(const Tensor& x, const Pass& pass) const {
    const Tensor asked = query.forward(x);
    const Tensor q = nn::split_heads(asked, heads);  // [batch, heads, time, dim]
    const Tensor k = nn::split_heads(key.forward(x), heads), v = nn::split_heads(value.forward(x), heads);
    const double p = pass.training ? dropout : 0;
    nn::Attended result = pass.relative.defined()
                              ? nn::gated_attend(q, k, v, gate(asked), pass.relative, pass.mask, p, pass.attentions)
                              : nn::attend(q, k, v, nn::attention_mask(pass.mask), p, pass.attentions);
    result.output = watched(x, output.forward(nn::join_heads(result.output)));
    return result;
  }

 private:
  // Unlike WavLM's it reads the query, before it is scaled.
  Tensor gate(const Tensor& asked) const {
    if (gates == nullptr) return at::ones({asked.size(0), heads, asked.size(1)}, asked.options());
    return nn::relative_gate(asked.unflatten(-1, {heads, -1}), *gates, gate_scale);
  }

  const Tensor gate_scale;  // [1, heads, 1, 1]
  Embedding* const biases;  // [buckets, heads]
  Linear &key, &value, &query, &output;
  Linear* const gates;
  const DistanceBuckets buckets;
  const int64_t heads;
  const double dropout;
};

}  // namespace

class BeatsLayer : public Block {
 public:
  BeatsLayer(const ModuleOptions& options, const BeatsConfig& c, int64_t layer)
      : Block("BeatsLayer", options),
        attention(*child<BeatsAttention>("self_attn", c, layer)),
        attention_norm(*child<LayerNorm>("self_attn_layer_norm", c.dim, kEps)),
        up(*child<Linear>("fc1", c.dim, c.intermediate, weight_init(c, c.dim, c.intermediate, true), init::zeros())),
        down(*child<Linear>("fc2", c.intermediate, c.dim, weight_init(c, c.intermediate, c.dim, true), init::zeros())),
        final_norm(*child<LayerNorm>("final_layer_norm", c.dim, kEps)),
        activation(nn::activation(c.activation)),
        norm_first(c.norm_first),
        alpha(c.deep_norm ? std::pow(2.0 * static_cast<double>(c.layers), 0.25) : 1),
        dropout(c.dropout),
        activation_dropout(c.activation_dropout) {}

  nn::Attended forward(const Tensor& x, const Pass& pass) const {
    nn::Attended result = attention.forward(norm_first ? attention_norm.forward(x) : x, pass);
    const Tensor attended = at::add(nn::drop(result.output, dropout, pass.training), x, alpha);
    if (norm_first) {
      result.output = attended + feed_forward(final_norm.forward(attended), pass);
    } else {
      const Tensor normed = attention_norm.forward(attended);
      result.output = final_norm.forward(at::add(feed_forward(normed, pass), normed, alpha));
    }
    result.output = watched(x, std::move(result.output));
    return result;
  }

  BeatsAttention& attention;

 private:
  Tensor feed_forward(const Tensor& x, const Pass& pass) const {
    const Tensor hidden = nn::drop(up.forward(x, activation), activation_dropout, pass.training);
    return nn::drop(down.forward(hidden), dropout, pass.training);
  }

  LayerNorm& attention_norm;
  Linear &up, &down;
  LayerNorm& final_norm;
  const nn::Activation activation;
  const bool norm_first;
  const double alpha;  // deep norm (https://arxiv.org/abs/2203.00555)
  const double dropout, activation_dropout;
};

namespace {

// The input itself, which passes back a part of its gradient.
struct PassBack : torch::autograd::Function<PassBack> {
  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& x, double part) {
    ctx->saved_data["part"] = part;
    return x.view_as(x);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    return {grads[0].defined() ? grads[0] * ctx->saved_data["part"].toDouble() : Tensor(), Tensor()};
  }
};

}  // namespace

class BeatsTransformer : public Block, public nn::Checkpointing {
 public:
  BeatsTransformer(const ModuleOptions& options, const BeatsConfig& c)
      : Block("BeatsTransformer", options),
        positions(child<ModuleList<nn::NormedConv1d>>("pos_conv")
                      ->add(c.dim, c.position_kernel, c.position_groups, nn::kWeightNormNames)),
        layers(*child<ModuleList<BeatsLayer>>("layers")),
        norm(*child<LayerNorm>("layer_norm", c.dim, kEps)),
        activation(nn::activation("gelu")),
        norm_first(c.norm_first),
        dropout(c.dropout),
        layer_drop(c.layer_drop),
        gradient_decay(c.gradient_decay) {
    for (int64_t i = 0; i < c.layers; ++i) layers.add(c, i);
  }

  // x [batch, patches, dim], padding bool [batch, patches] or undefined.
  BeatsOutput forward(const Tensor& input, const Tensor& padding, bool training, bool hidden_states,
                      bool attentions) const {
    Tensor x = input;
    if (padding.defined()) x = x.masked_fill(padding.unsqueeze(-1), 0);
    x = x + activation(positions.forward(x.transpose(1, 2), positions.weight())).transpose(1, 2);
    if (!norm_first) x = norm.forward(x);
    x = nn::drop(x, dropout, training);

    const Pass pass{padding.defined() ? padding.logical_not() : Tensor(),
                    layers.size() > 0 ? layers[0].attention.relative_bias(x.size(1)) : Tensor(), training, attentions};
    BeatsOutput result;
    for (BeatsLayer* layer : layers) {
      if (hidden_states) result.hidden_states.push_back(x);
      if (gradient_decay != 1 && at::GradMode::is_enabled() && x.requires_grad()) {
        x = PassBack::apply(x, gradient_decay);
      }
      if (training && layer_drop > 0 && at::rand({1}).item<double>() <= layer_drop) continue;
      nn::Attended attended = nn::should_checkpoint(*this) ? again_later(*layer, x, pass) : layer->forward(x, pass);
      x = std::move(attended.output);
      if (attentions) result.attentions.push_back(std::move(attended.weights));
    }
    if (hidden_states) result.hidden_states.push_back(x);
    result.last_hidden_state = watched(input, norm_first ? norm.forward(x) : x);
    return result;
  }

 private:
  static nn::Attended again_later(BeatsLayer& layer, const Tensor& x, const Pass& pass) {
    std::vector<Tensor> outputs =
        nn::checkpoint(layer, {x, pass.mask, pass.relative},
                       [&layer, training = pass.training,
                        attentions = pass.attentions](const std::vector<Tensor>& in) -> std::vector<Tensor> {
                         nn::Attended attended = layer.forward(in[0], {in[1], in[2], training, attentions});
                         if (!attentions) return {attended.output};
                         return {attended.output, attended.weights};
                       });
    return {outputs[0], pass.attentions ? outputs[1] : Tensor()};
  }

  nn::NormedConv1d& positions;
  ModuleList<BeatsLayer>& layers;
  LayerNorm& norm;
  const nn::Activation activation;
  const bool norm_first;
  const double dropout, layer_drop, gradient_decay;
};

namespace {

Init linear_init(int64_t in) { return init::uniform(1 / std::sqrt(static_cast<double>(in))); }

}  // namespace

Beats::Beats(const ModuleOptions& options, const Config& given)
    : Module("Beats", options),
      config(given),
      patch_embedding(*child<BeatsPatches>("patch_embedding", config)),
      layer_norm(*child<LayerNorm>("layer_norm", config.embed_dim, kEps)),
      post_extract_proj(config.embed_dim == config.dim
                            ? nullptr
                            : child<Linear>("post_extract_proj", config.embed_dim, config.dim,
                                            linear_init(config.embed_dim), linear_init(config.embed_dim))),
      encoder(*child<BeatsTransformer>("encoder", config)),
      predictor(config.has_predictor ? child<Linear>("predictor", config.dim, config.classes, linear_init(config.dim),
                                                     linear_init(config.dim))
                                     : nullptr) {}

bool Beats::learns() const {
  const std::vector<Tensor> all = all_parameters();
  return training() && std::any_of(all.begin(), all.end(), [](const Tensor& tensor) { return tensor.requires_grad(); });
}

BeatsOutput Beats::forward(const BeatsInputs& inputs, bool hidden_states, bool attentions) const {
  const Tensor& fbank = inputs.fbank;
  TORCH_CHECK(fbank.dim() == 3 && fbank.size(0) > 0, "fbank must be [batch, frames, bands], got ", fbank.sizes());
  TORCH_CHECK(fbank.is_floating_point(), "fbank must have a floating-point dtype, got ", fbank.scalar_type());
  TORCH_CHECK(fbank.size(1) >= config.patch && fbank.size(2) >= config.patch, "fbank has the shape ", fbank.sizes(),
              ", but frames and bands must be at least the ", config.patch, " of a patch; pad the audio with zeros");
  Tensor x = layer_norm.forward(patch_embedding.forward(fbank).contiguous());
  const Tensor padding = padding_of_patches(inputs, x.size(1));
  if (post_extract_proj != nullptr) x = post_extract_proj->forward(x);
  const bool training = learns();
  x = nn::drop(x, config.input_dropout, training);
  BeatsOutput result = encoder.forward(x, padding, training, hidden_states, attentions);
  if (inputs.lengths && padding.defined()) {
    result.last_hidden_state = result.last_hidden_state.masked_fill(padding.unsqueeze(-1), 0);
  }
  result.padding_mask = padding;
  return result;
}

namespace {

// [batch, n] -> [batch, groups]: true where a whole group of n / groups is. What is left over at the end is dropped.
Tensor all_of_groups(const Tensor& mask, int64_t groups) {
  const int64_t size = mask.size(1) / groups;
  return mask.narrow(1, 0, groups * size).unflatten(1, {groups, size}).all(-1);
}

}  // namespace

Tensor Beats::padding_of_patches(const BeatsInputs& inputs, int64_t patches) const {
  const int64_t batch = inputs.fbank.size(0), frames = inputs.fbank.size(1), bands = inputs.fbank.size(2);
  if (inputs.lengths) {
    TORCH_CHECK(!inputs.padding_mask.defined(), "lengths and padding_mask exclude each other");
    std::vector<int64_t> counts;
    for (const int64_t length : *inputs.lengths) {
      TORCH_CHECK(length >= config.patch && length <= frames, "lengths must have from ", config.patch,
                  ", the frames of a patch, to the ", frames, " frames of fbank, got ", length);
      counts.push_back(length / config.patch * (bands / config.patch));
    }
    TORCH_CHECK(static_cast<int64_t>(counts.size()) == batch, "lengths must have one number for each of the ", batch,
                " rows of fbank, got ", counts.size());
    if (std::all_of(counts.begin(), counts.end(), [&](int64_t count) { return count == patches; })) return {};
    const Tensor valid = at::tensor(counts, at::TensorOptions().dtype(at::kLong));
    return upload(at::arange(patches, valid.options()).unsqueeze(0) >= valid.unsqueeze(1), inputs.fbank.device());
  }
  if (!inputs.padding_mask.defined()) return {};
  const Tensor& mask = inputs.padding_mask;
  TORCH_CHECK(mask.dim() == 2 && mask.size(0) == batch && mask.size(1) >= frames,
              "padding_mask must be [batch, samples] with the ", batch, " rows and at least the ", frames,
              " frames of fbank, got ", mask.sizes());
  return all_of_groups(all_of_groups(upload(mask, inputs.fbank.device()).to(at::kBool), frames), patches);
}

Tensor Beats::classify(const BeatsInputs& inputs) const {
  TORCH_CHECK(predictor != nullptr, "the network has no predictor: finetuned_model is not set in its configuration");
  const BeatsOutput encoded = forward(inputs);
  const Tensor x = nn::drop(encoded.last_hidden_state, config.predictor_dropout, learns());
  const Tensor logits = predictor->forward(x);  // [batch, patches, classes]
  if (!encoded.padding_mask.defined()) return logits.mean(1);
  const Tensor valid = encoded.padding_mask.logical_not().sum(1, true);  // [batch, 1]
  return logits.masked_fill(encoded.padding_mask.unsqueeze(-1), 0).sum(1) / valid;
}

namespace {

using BeatsResult = std::tuple<Tensor, std::optional<Tensor>, std::vector<Tensor>, std::vector<Tensor>>;

BeatsInputs inputs_of(const Tensor& fbank, const std::optional<std::vector<int64_t>>& lengths,
                      const std::optional<Tensor>& padding_mask) {
  return {fbank, lengths, padding_mask.value_or(Tensor())};
}

BeatsResult forward_beats(const c10::intrusive_ptr<Module>& self, const Tensor& fbank,
                          const std::optional<std::vector<int64_t>>& lengths, const std::optional<Tensor>& padding_mask,
                          bool hidden_states, bool attentions) {
  BeatsOutput result =
      network<Beats>(self, "beats_forward").forward(inputs_of(fbank, lengths, padding_mask), hidden_states, attentions);
  return {result.last_hidden_state,
          result.padding_mask.defined() ? std::optional<Tensor>(result.padding_mask) : std::nullopt,
          std::move(result.hidden_states), std::move(result.attentions)};
}

std::tuple<Tensor, Tensor> classify(const c10::intrusive_ptr<Module>& self, const Tensor& fbank,
                                    const std::optional<std::vector<int64_t>>& lengths,
                                    const std::optional<Tensor>& padding_mask) {
  const Tensor logits = network<Beats>(self, "beats_classify").classify(inputs_of(fbank, lengths, padding_mask));
  return {logits, at::sigmoid(logits)};
}

const RegisteredModule registered_beats("beats", make_module<Beats>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "beats_forward(__torch__.torch.classes.voxtorch.Module self, Tensor fbank, int[]? lengths=None, *, Tensor? "
      "padding_mask=None, bool output_hidden_states=False, bool output_attentions=False) -> (Tensor last_hidden_state, "
      "Tensor? padding_mask, Tensor[] hidden_states, Tensor[] attentions)",
      forward_beats);
  m.def(
      "beats_classify(__torch__.torch.classes.voxtorch.Module self, Tensor fbank, int[]? lengths=None, *, Tensor? "
      "padding_mask=None) -> (Tensor logits, Tensor probabilities)",
      classify);
}

}  // namespace voxtorch::models

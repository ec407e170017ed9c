// The network of USDM's token-Voicebox (Kim et al. 2024, https://arxiv.org/abs/2402.05706, after Le et al. 2023,
// https://arxiv.org/abs/2306.15687) with the names of its published checkpoint: units of speech, a noisy mel
// spectrogram, what of it is known, and a time from noise (0) to speech (1) -> the velocity with which the flow carries
// the noisy one there. A transformer whose second half reads the first's states (U-skips), with linear biases for
// distances (ALiBi: Press et al. 2021, https://arxiv.org/abs/2108.12409).
#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>

#include "core/nn/checkpoint.h"
#include "core/nn/conv.h"
#include "core/nn/embedding.h"
#include "core/nn/linear.h"
#include "core/nn/norm.h"
#include "core/runtime/transfers.h"

namespace voxtorch::models {
namespace {

using at::Tensor;
using nn::Embedding;
using nn::LayerNorm;
using nn::Linear;
using nn::NormedConv1d;

constexpr double kEps = 1e-5;

struct VoiceboxConfig {
  explicit VoiceboxConfig(const Config& config)
      : mels(config.integer("n_feats", 80)),
        units(config.integer("n_tokens", 10000)),
        unit_dim(config.integer("embedding_dim", 1280)),
        dim(config.integer("hidden_size", 1024)),
        intermediate(config.integer("intermediate_size", 4096)),
        heads(config.integer("num_attention_heads", 16)),
        layers(config.integer("num_hidden_layers", 24)),
        position_kernel(config.integer("convpos_width", 31)),
        position_groups(config.integer("convpos_groups", 16)),
        position_depth(config.integer("convpos_depth", 2)),
        attention_dropout(config.probability("attention_dropout", 0)),
        activation_dropout(config.probability("activation_dropout", 0.1)),
        dropout(config.probability("hidden_dropout", 0)) {
    TORCH_CHECK(mels > 0 && units > 0 && unit_dim > 0 && intermediate > 0,
                "n_feats, n_tokens, embedding_dim and intermediate_size must be positive, got ", mels, ", ", units,
                ", ", unit_dim, " and ", intermediate);
    TORCH_CHECK(heads > 0 && dim > 0 && dim % heads == 0, "hidden_size ", dim,
                " is not divisible by num_attention_heads ", heads);
    TORCH_CHECK(dim % 2 == 0 && dim > 2, "hidden_size must be an even number above 2, got ", dim);
    TORCH_CHECK(layers >= 0 && layers % 2 == 0, "num_hidden_layers must be even, as each layer of the second half ",
                "reads one of the first, got ", layers);
    TORCH_CHECK(position_groups > 0 && dim % position_groups == 0, "hidden_size ", dim,
                " is not divisible by convpos_groups ", position_groups);
    // Files come from strangers: more would take time without taking memory.
    constexpr int64_t kMostTaps = 65536, kMostConvolutions = 1000;
    TORCH_CHECK(position_kernel > 0 && position_kernel <= kMostTaps && position_depth >= 0 &&
                    position_depth <= kMostConvolutions,
                "convpos_width must be from 1 to ", kMostTaps, " and convpos_depth from 0 to ", kMostConvolutions,
                ", got ", position_kernel, " and ", position_depth);
  }

  int64_t mels, units, unit_dim, dim, intermediate, heads, layers;
  int64_t position_kernel, position_groups, position_depth;
  double attention_dropout, activation_dropout, dropout;
};

// As PyTorch draws the weights and biases of its layers.
Init drawn(int64_t in) { return init::uniform(1 / std::sqrt(static_cast<double>(in))); }

// What the layers of one pass share.
struct Pass {
  Tensor valid;     // bool [batch, time], false for padding; undefined: all are valid
  Tensor gate;      // ones [batch, heads, time]
  Tensor relative;  // [heads, 2 * time - 1]
  bool training;

  Tensor masked(const Tensor& x) const {  // [batch, time, dim]
    return valid.defined() ? x * valid.unsqueeze(-1).to(x.scalar_type()) : x;
  }
};

// The slope of each head: powers of 2^(-8 / heads), and for a number of heads that is not a power of 2 those of the
// next smaller one, followed by every second of the next larger.
std::vector<double> slopes(int64_t heads) {
  const auto powers = [](int64_t count) {
    std::vector<double> result;
    for (int64_t h = 1; h <= count; ++h)
      result.push_back(std::pow(2, -8.0 * static_cast<double>(h) / static_cast<double>(count)));
    return result;
  };
  int64_t closest = 1;
  while (closest * 2 <= heads) closest *= 2;
  std::vector<double> result = powers(closest);
  const std::vector<double> between = powers(2 * closest);
  for (size_t i = 0; static_cast<int64_t>(result.size()) < heads; i += 2) result.push_back(between[i]);
  return result;
}

// -slope * |key - query|, [heads, 2 * time - 1].
Tensor distance_biases(int64_t heads, int64_t time, at::ScalarType type, c10::Device device) {
  const Tensor distances = at::arange(1 - time, time, at::TensorOptions().dtype(at::kDouble)).abs();
  const Tensor slope = at::tensor(slopes(heads), at::TensorOptions().dtype(at::kDouble));
  return upload((slope.neg().unsqueeze(1) * distances).to(at::toOpMathType(type)), device);
}

class VoiceboxAttention : public Block {
 public:
  VoiceboxAttention(const ModuleOptions& options, const VoiceboxConfig& c)
      : Block("VoiceboxAttention", options),
        key(*child<Linear>("k_proj", c.dim, c.dim, drawn(c.dim), drawn(c.dim))),
        value(*child<Linear>("v_proj", c.dim, c.dim, drawn(c.dim), drawn(c.dim))),
        query(*child<Linear>("q_proj", c.dim, c.dim, drawn(c.dim), drawn(c.dim))),
        output(*child<Linear>("out_proj", c.dim, c.dim, drawn(c.dim), drawn(c.dim))),
        heads(c.heads),
        dropout(c.attention_dropout) {}

  Tensor forward(const Tensor& x, const Pass& pass) const {
    using Attend = Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                          const std::optional<Tensor>&, double, int64_t, std::optional<double>, int64_t);
    static const auto attend =
        c10::Dispatcher::singleton().findSchemaOrThrow("voxtorch::gated_position_attention", "").typed<Attend>();
    const auto split = [&](const Linear& of) { return nn::split_heads(of.forward(x), heads); };
    const double p = pass.training ? dropout : 0;
    // The time, which comes before the frames, is equally near to all of them.
    constexpr int64_t kFreeKeys = 1;
    const Tensor attended = attend.call(split(query), split(key), split(value), pass.gate, pass.relative,
                                        pass.valid.defined() ? std::optional<Tensor>(pass.valid) : std::nullopt, p,
                                        p > 0 ? nn::draw_seed() : 0, std::nullopt, kFreeKeys);
    return watched(x, output.forward(nn::join_heads(attended)));
  }

 private:
  Linear &key, &value, &query, &output;
  const int64_t heads;
  const double dropout;
};

class FeedForward : public Block {
 public:
  FeedForward(const ModuleOptions& options, const VoiceboxConfig& c)
      : Block("FeedForward", options),
        up(*child<Linear>("intermediate_dense", c.dim, c.intermediate, drawn(c.dim), drawn(c.dim))),
        down(*child<Linear>("output_dense", c.intermediate, c.dim, drawn(c.intermediate), drawn(c.intermediate))),
        activation(nn::activation("gelu")),
        activation_dropout(c.activation_dropout),
        dropout(c.dropout) {}

  Tensor forward(const Tensor& x, bool training) const {
    const Tensor hidden = nn::drop(up.forward(x, activation), activation_dropout, training);
    return watched(x, nn::drop(down.forward(hidden), dropout, training));
  }

 private:
  Linear &up, &down;
  const nn::Activation activation;
  const double activation_dropout, dropout;
};

// Norms its outputs, not its inputs.
class VoiceboxLayer : public Block {
 public:
  VoiceboxLayer(const ModuleOptions& options, const VoiceboxConfig& c)
      : Block("VoiceboxLayer", options),
        attention(*child<VoiceboxAttention>("attention", c)),
        norm(*child<LayerNorm>("layer_norm", c.dim, kEps)),
        feed_forward(*child<FeedForward>("feed_forward", c)),
        final_norm(*child<LayerNorm>("final_layer_norm", c.dim, kEps)),
        dropout(c.dropout) {}

  Tensor forward(const Tensor& x, const Pass& pass) const {
    const Tensor attended = nn::drop(attention.forward(x, pass), dropout, pass.training);
    const Tensor between = norm.forward(pass.masked(x + attended));
    const Tensor result = final_norm.forward(pass.masked(between + feed_forward.forward(between, pass.training)));
    return watched(x, pass.masked(result));
  }

 private:
  VoiceboxAttention& attention;
  LayerNorm& norm;
  FeedForward& feed_forward;
  LayerNorm& final_norm;
  const double dropout;
};

// A convolution of one step: weight [out, in, 1].
class Pointwise : public Block {
 public:
  Pointwise(const ModuleOptions& options, int64_t in, int64_t out)
      : Block("Pointwise", options),
        weight(parameter("weight", {out, in, 1}, drawn(in))),
        bias(parameter("bias", {out}, drawn(in))) {}

  Tensor forward(const Tensor& frames) const {  // [batch, time, in] -> [batch, time, out]
    return watched(frames, kernels::linear(frames, weight.squeeze(-1), bias));
  }

 private:
  const Tensor weight, bias;
};

// A list of one, as published.
class PositionConv : public Module {
 public:
  PositionConv(const ModuleOptions& options, const VoiceboxConfig& c)
      : Module("PositionalConvEmbedding", options),
        conv(*child<NormedConv1d>("conv", c.dim, c.position_kernel, c.position_groups)),
        gelu(nn::activation("gelu")) {}

  Tensor forward(const Tensor& x) const {  // [batch, time, dim]
    return gelu(conv.forward(x.transpose(1, 2), conv.weight())).transpose(1, 2);
  }

 private:
  NormedConv1d& conv;
  const nn::Activation gelu;
};

struct VoiceboxInputs {
  Tensor units;      // int64 [batch, frames]
  Tensor noisy;      // [batch, mels, frames]
  Tensor condition;  // [batch, mels, frames], zeros where nothing is known
  Tensor time;       // [batch]
  std::optional<std::vector<int64_t>> lengths;
};

class Estimator : public Block, public nn::Checkpointing {
 public:
  Estimator(const ModuleOptions& options, const VoiceboxConfig& c)
      : Block("Transformer", options),
        c(c),
        embed(*child<Embedding>("embed", c.units + 1, c.unit_dim, -1, 1.0)),
        proj_in(*child<Pointwise>("proj_in", 2 * c.mels + c.unit_dim, c.dim)),
        positions(*child<ModuleList<PositionConv>>("pos_conv_embeds")),
        norm(*child<LayerNorm>("layer_norm", c.dim, kEps)),
        layers(*child<ModuleList<VoiceboxLayer>>("layers")),
        skips(*child<ModuleList<Linear>>("skip_connections_layers")),
        proj_out(*child<Pointwise>("proj_out", c.dim, c.mels)) {
    for (int64_t i = 0; i < c.position_depth; ++i) positions.add(c);
    for (int64_t i = 0; i < c.layers; ++i) layers.add(c);
    for (int64_t i = 0; i < c.layers / 2; ++i) skips.add(2 * c.dim, c.dim, drawn(2 * c.dim), drawn(2 * c.dim));
  }

  Tensor forward(const VoiceboxInputs& in, bool training) const {
    const int64_t batch = in.units.size(0), frames = in.units.size(1), time = frames + 1;
    const Tensor seen = at::cat({embed.forward(in.units) * std::sqrt(static_cast<double>(c.unit_dim)),
                                 in.noisy.transpose(1, 2), in.condition.transpose(1, 2)},
                                2);                                                       // [batch, frames, channels]
    const Tensor projected = proj_in.forward(seen);                                       // [batch, frames, dim]
    Tensor x = at::cat({time_token(in.time).to(projected.scalar_type()), projected}, 1);  // [batch, time, dim]
    const Pass pass{valid(in, time), at::ones({batch, c.heads, time}, x.options()),
                    distance_biases(c.heads, time, x.scalar_type(), x.device()), training};
    x = pass.masked(x);
    Tensor placed = x;
    for (const PositionConv* conv : positions) placed = pass.masked(conv->forward(placed));
    x = pass.masked(nn::drop(norm.forward(placed + x), c.dropout, training));

    std::vector<Tensor> passed = {x};
    const size_t half = layers.size() / 2;
    for (size_t i = 0; i < layers.size(); ++i) {
      if (i >= half) {
        x = pass.masked(skips[i - half].forward(at::cat({x, passed.back()}, -1)));
        passed.pop_back();
      }
      x = nn::should_checkpoint(*this) ? again_later(layers[i], x, pass) : layers[i].forward(x, pass);
      if (i + 1 < half) passed.push_back(x);
    }
    const Tensor velocity = pass.masked(proj_out.forward(x)).narrow(1, 1, frames).transpose(1, 2);
    return watched(in.units, velocity.contiguous());
  }

 private:
  // Sines and cosines of 1000 t at frequencies from 1 to 1 / 10000, [batch, 1, dim].
  Tensor time_token(const Tensor& time) const {
    const int64_t half = c.dim / 2;
    const Tensor steps = at::arange(half, at::TensorOptions().dtype(at::kDouble));
    const Tensor frequencies = (steps * (-std::log(10000.0) / static_cast<double>(half - 1))).exp();
    const Tensor angles = (1000 * time.to(at::kDouble)).unsqueeze(-1) * upload(frequencies, time.device());
    return at::cat({angles.sin(), angles.cos()}, -1).unsqueeze(1);
  }

  static Tensor valid(const VoiceboxInputs& in, int64_t time) {
    if (!in.lengths) return {};
    if (std::all_of(in.lengths->begin(), in.lengths->end(), [&](int64_t length) { return length + 1 == time; }))
      return {};
    const Tensor ends = at::tensor(*in.lengths, at::TensorOptions().dtype(at::kLong)) + 1;
    return upload(at::arange(time, ends.options()).unsqueeze(0) < ends.unsqueeze(1), in.units.device());
  }

  static Tensor again_later(VoiceboxLayer& layer, const Tensor& x, const Pass& pass) {
    return nn::checkpoint(layer, {x, pass.valid, pass.gate, pass.relative},
                          [&layer, training = pass.training](const std::vector<Tensor>& in) -> std::vector<Tensor> {
                            return {layer.forward(in[0], {in[1], in[2], in[3], training})};
                          })[0];
  }

  const VoiceboxConfig c;
  Embedding& embed;
  Pointwise& proj_in;
  ModuleList<PositionConv>& positions;
  LayerNorm& norm;
  ModuleList<VoiceboxLayer>& layers;
  ModuleList<Linear>& skips;
  Pointwise& proj_out;
};

class UnitVoicebox : public Module {
 public:
  UnitVoicebox(const ModuleOptions& options, const Config& given)
      : Module("UnitVoicebox", options), config(given), estimator(*child<Estimator>("estimator", config)) {}

  Tensor forward(const VoiceboxInputs& in) const {
    TORCH_CHECK(in.units.dim() == 2 && in.units.size(0) > 0 && in.units.size(1) > 0 &&
                    at::isIntegralType(in.units.scalar_type(), false),
                "units must be integers [batch, frames], got ", in.units.scalar_type(), " ", in.units.sizes());
    const int64_t batch = in.units.size(0), frames = in.units.size(1);
    for (const auto& [name, mel] : {std::pair<const char*, const Tensor&>{"noisy", in.noisy},
                                    std::pair<const char*, const Tensor&>{"condition", in.condition}}) {
      TORCH_CHECK(mel.dim() == 3 && mel.size(0) == batch && mel.size(1) == config.mels && mel.size(2) == frames, name,
                  " must be [batch, n_feats, frames] = [", batch, ", ", config.mels, ", ", frames, "], got ",
                  mel.sizes());
      TORCH_CHECK(mel.is_floating_point(), name, " must have a floating-point dtype, got ", mel.scalar_type());
    }
    TORCH_CHECK(in.time.dim() == 1 && in.time.size(0) == batch && in.time.is_floating_point(),
                "time must be floating-point numbers [batch] = [", batch, "], got ", in.time.scalar_type(), " ",
                in.time.sizes());
    if (in.lengths) {
      TORCH_CHECK(static_cast<int64_t>(in.lengths->size()) == batch, "lengths must have one number for each of the ",
                  batch, " rows of units, got ", in.lengths->size());
      for (const int64_t length : *in.lengths) {
        TORCH_CHECK(length >= 0 && length <= frames, "lengths must be from 0 to the ", frames, " frames of units, got ",
                    length);
      }
    }
    return estimator.forward(in, learns());
  }

 private:
  // A frozen network drops nothing, whatever mode a larger one has put it in.
  bool learns() const {
    if (!training()) return false;
    const std::vector<Tensor> all = all_parameters();
    return std::any_of(all.begin(), all.end(), [](const Tensor& tensor) { return tensor.requires_grad(); });
  }

  const VoiceboxConfig config;
  Estimator& estimator;
};

Tensor forward_unit_voicebox(const c10::intrusive_ptr<Module>& self, const Tensor& units, const Tensor& noisy,
                             const Tensor& condition, const Tensor& time,
                             const std::optional<std::vector<int64_t>>& lengths) {
  return network<UnitVoicebox>(self, "unit_voicebox_forward").forward({units, noisy, condition, time, lengths});
}

const RegisteredModule registered_unit_voicebox("unit_voicebox", make_module<UnitVoicebox>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "unit_voicebox_forward(__torch__.torch.classes.voxtorch.Module self, Tensor units, Tensor noisy, Tensor "
      "condition, Tensor time, int[]? lengths=None) -> Tensor velocity",
      forward_unit_voicebox);
}

}  // namespace voxtorch::models

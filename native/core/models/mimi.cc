// Mimi (Défossez et al. 2024, https://arxiv.org/abs/2410.00037), a codec of speech, with the names of its published
// checkpoint (https://huggingface.co/kyutai/mimi): samples -> causal convolutions (SEANet) -> transformer -> strided
// convolution -> codes of residual vector quantizers, a semantic one and an acoustic one; and back. All of it is
// causal: with a state, the next samples or codes continue a stream.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cdist.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/elu.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/replication_pad1d.h>
#include <ATen/ops/stack.h>
#include <c10/core/InferenceMode.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "core/nn/linear.h"
#include "core/nn/norm.h"
#include "core/nn/rotary.h"
#include "core/nn/wave_conv.h"
#include "core/runtime/transfers.h"

namespace voxtorch::models {
namespace {

using at::Tensor;
using nn::Linear;
using nn::WaveConv1d;
using nn::WaveConvShape;
using KeysValues = std::pair<Tensor, Tensor>;  // [batch, heads, time, head_dim]

struct MimiConfig {
  explicit MimiConfig(const Config& config)
      : channels(config.integer("audio_channels")),
        dim(config.integer("hidden_size")),
        filters(config.integer("num_filters")),
        residual_layers(config.integer("num_residual_layers")),
        ratios(config.integers("upsampling_ratios", {8, 6, 5, 4})),
        kernel(config.integer("kernel_size")),
        last_kernel(config.integer("last_kernel_size")),
        residual_kernel(config.integer("residual_kernel_size")),
        dilation_growth(config.integer("dilation_growth_rate")),
        compress(config.integer("compress")),
        codebook_size(config.integer("codebook_size")),
        codebook_dim(config.integer("codebook_dim")),
        quantizers(config.integer("num_quantizers")),
        semantic_quantizers(config.integer("num_semantic_quantizers")),
        upsample_groups(config.integer("upsample_groups")),
        latent_stride(config.integer("latent_stride")),
        layers(config.integer("num_hidden_layers")),
        intermediate(config.integer("intermediate_size")),
        heads(config.integer("num_attention_heads")),
        key_value_heads(config.integer("num_key_value_heads")),
        head_dim(config.integer("head_dim")),
        max_positions(config.integer("max_position_embeddings")),
        window(config.integer("sliding_window")),
        activation(config.text("hidden_act", "gelu")),
        norm_eps(config.number("norm_eps", 1e-5)),
        std(config.number("initializer_range", 0.02)),
        layer_scale(config.number("layer_scale_initial_scale", 0.01)),
        attention_dropout(config.probability("attention_dropout", 0)),
        replicates(config.text("pad_mode", "constant") == "replicate"),
        shortcut(config.boolean("use_conv_shortcut", false)),
        bias(config.boolean("attention_bias", false)) {
    const std::string padding = config.text("pad_mode", "constant");
    TORCH_CHECK(replicates || padding == "constant", "pad_mode: expected constant or replicate, got '", padding, "'");
    TORCH_CHECK(channels == 1 || channels == 2, "audio_channels: expected 1 or 2, got ", channels);
    // Sizes of files of unknown origin: larger ones take time before they take memory.
    constexpr int64_t kMost = 65536, kMostRatios = 16, kMostQuantizers = 1024;
    const auto positive = [&](const char* name, int64_t value) {
      TORCH_CHECK(value > 0 && value <= kMost, name, ": expected an integer from 1 to ", kMost, ", got ", value);
    };
    positive("hidden_size", dim);
    positive("num_filters", filters);
    positive("kernel_size", kernel);
    positive("last_kernel_size", last_kernel);
    positive("residual_kernel_size", residual_kernel);
    positive("dilation_growth_rate", dilation_growth);
    positive("compress", compress);
    positive("codebook_dim", codebook_dim);
    positive("upsample_groups", upsample_groups);
    positive("latent_stride", latent_stride);
    positive("intermediate_size", intermediate);
    positive("num_attention_heads", heads);
    positive("num_key_value_heads", key_value_heads);
    positive("head_dim", head_dim);
    positive("sliding_window", window);
    TORCH_CHECK(!ratios.empty() && static_cast<int64_t>(ratios.size()) <= kMostRatios,
                "upsampling_ratios: expected 1 to ", kMostRatios, " ratios, got ", ratios.size());
    for (const int64_t ratio : ratios) positive("upsampling_ratios", ratio);
    TORCH_CHECK(residual_layers >= 0 && residual_layers <= kMostRatios &&
                    std::pow(dilation_growth, std::max<int64_t>(residual_layers - 1, 0)) <= kMost,
                "num_residual_layers: expected 0 to ", kMostRatios, " with dilations of at most ", kMost, ", got ",
                residual_layers);
    TORCH_CHECK(layers >= 0 && layers <= kMost, "num_hidden_layers: expected 0 to ", kMost, ", got ", layers);
    TORCH_CHECK(compress <= filters, "compress: expected at most num_filters ", filters, ", got ", compress);
    TORCH_CHECK(codebook_size > 0 && codebook_size <= kMost * kMost / 16 && (codebook_size & (codebook_size - 1)) == 0,
                "codebook_size: expected a power of 2, got ", codebook_size);
    TORCH_CHECK(quantizers > 1 && quantizers <= kMostQuantizers, "num_quantizers: expected 2 to ", kMostQuantizers,
                ", got ", quantizers);
    TORCH_CHECK(semantic_quantizers > 0 && semantic_quantizers < quantizers,
                "num_semantic_quantizers: expected 1 to num_quantizers - 1, ", quantizers - 1, ", got ",
                semantic_quantizers);
    TORCH_CHECK(dim % upsample_groups == 0, "hidden_size ", dim, " is not divisible by upsample_groups ",
                upsample_groups);
    TORCH_CHECK(heads % key_value_heads == 0, "num_attention_heads ", heads,
                " is not divisible by num_key_value_heads ", key_value_heads);
    const int64_t hidden = config.integer("vector_quantization_hidden_dimension");
    TORCH_CHECK(hidden == codebook_dim, "vector_quantization_hidden_dimension: expected codebook_dim ", codebook_dim,
                ", got ", hidden);
  }

  int64_t channels, dim, filters, residual_layers;
  std::vector<int64_t> ratios;
  int64_t kernel, last_kernel, residual_kernel, dilation_growth, compress;
  int64_t codebook_size, codebook_dim, quantizers, semantic_quantizers;
  int64_t upsample_groups, latent_stride;
  int64_t layers, intermediate, heads, key_value_heads, head_dim, max_positions, window;
  std::string activation;
  double norm_eps, std, layer_scale, attention_dropout;
  bool replicates, shortcut, bias;
};

// What a stream has read so far: the last inputs of each convolution in the order of a pass, and the keys and values of
// each layer of the transformer that the window still reaches.
struct MimiPast {
  std::vector<Tensor> inputs;    // [batch, channels, context]
  std::vector<KeysValues> keys;  // of each layer
  int64_t position = 0;          // frames that the transformer has read
};

class MimiState : public Module {
 public:
  MimiState(const ModuleOptions& options, const Config&) : Module("MimiState", options) {}
  MimiPast past;
  int64_t batch = 0;  // rows; 0: nothing was read
};

// One pass through the encoder or the decoder, with the past of a stream or without one.
class MimiPass {
 public:
  explicit MimiPass(const MimiState* state) : streams(state != nullptr), past_(state ? &state->past : nullptr) {
    if (streams) next.position = past_->position;
  }

  // x [batch, channels, time] after the `length` inputs before it; before the first are zeros, or copies of the first.
  Tensor with_context(const Tensor& x, int64_t length, bool replicates) {
    if (length == 0) return x;
    const size_t index = convolutions_++;
    if (!streams) return padded(x, length, 0, replicates);
    const bool begun = index < past_->inputs.size();
    const Tensor joined = begun ? at::cat({past_->inputs[index], x}, 2) : padded(x, length, 0, replicates);
    next.inputs.push_back(joined.narrow(2, joined.size(2) - length, length).clone(at::MemoryFormat::Contiguous));
    return joined;
  }

  static Tensor padded(const Tensor& x, int64_t left, int64_t right, bool replicates) {
    if (left == 0 && right == 0) return x;
    return replicates ? at::replication_pad1d(x, {left, right}) : at::constant_pad_nd(x, {left, right});
  }

  // Keys and values with those before them, and how many those are.
  std::pair<KeysValues, int64_t> with_keys(const KeysValues& own, size_t layer, int64_t window) {
    if (!streams) return {own, 0};
    KeysValues all = own;
    int64_t before = 0;
    if (layer < past_->keys.size()) {
      const auto& [keys, values] = past_->keys[layer];
      before = keys.size(2);
      all = {at::cat({keys, own.first}, 2), at::cat({values, own.second}, 2)};
    }
    const int64_t total = all.first.size(2), kept = std::min(total, window - 1);
    const auto last = [&](const Tensor& of) {
      return of.narrow(2, total - kept, kept).clone(at::MemoryFormat::Contiguous);
    };
    next.keys.emplace_back(last(all.first), last(all.second));
    return {all, before};
  }

  const bool streams;
  MimiPast next;

 private:
  const MimiPast* const past_;
  size_t convolutions_ = 0;
};

WaveConvShape with_std(WaveConvShape shape) {
  const int64_t fan_in = (shape.transposed ? shape.out : shape.in) / shape.groups * shape.kernel;
  shape.std = std::sqrt(2.0 / static_cast<double>(fan_in));
  return shape;
}

class MimiStage : public Block {
 public:
  using Block::Block;
  virtual Tensor forward(const Tensor& x, MimiPass& pass) const = 0;  // [batch, channels, time]
};

class MimiElu : public MimiStage {
 public:
  explicit MimiElu(const ModuleOptions& options) : MimiStage("MimiElu", options) {}
  Tensor forward(const Tensor& x, MimiPass&) const override { return watched(x, at::elu(x)); }
};

// Causal: an output sees its input and those before it. The end is padded to a multiple of the stride.
class MimiConv1d : public MimiStage {
 public:
  MimiConv1d(const ModuleOptions& options, const WaveConvShape& shape, bool replicates)
      : MimiStage("MimiConv1d", options),
        conv(*child<WaveConv1d>("conv", with_std(shape))),
        stride(shape.stride),
        context((shape.kernel - 1) * shape.dilation + 1 - shape.stride),
        replicates(replicates) {
    TORCH_CHECK(context >= 0, "kernel_size: expected at least the stride ", stride, ", got ", shape.kernel);
  }
  Tensor forward(const Tensor& x, MimiPass& pass) const override {
    const Tensor joined = pass.with_context(x, context, replicates);
    const int64_t more = (stride - x.size(2) % stride) % stride;
    return watched(x, conv.forward(MimiPass::padded(joined, 0, more, replicates)));
  }

 private:
  WaveConv1d& conv;
  const int64_t stride, context;
  const bool replicates;
};

// Its kernel is two strides long, so that an output sees one input and the one before it.
class MimiConvTranspose1d : public MimiStage {
 public:
  MimiConvTranspose1d(const ModuleOptions& options, WaveConvShape shape)
      : MimiStage("MimiConvTranspose1d", options),
        conv(*child<WaveConv1d>("conv", with_std(shape))),
        stride(shape.stride) {}
  Tensor forward(const Tensor& x, MimiPass& pass) const override {
    const int64_t length = x.size(2) * stride;
    if (!pass.streams) return watched(x, conv.forward(x).narrow(2, 0, length));
    return watched(x, conv.forward(pass.with_context(x, 1, false)).narrow(2, stride, length));
  }

 private:
  WaveConv1d& conv;
  const int64_t stride;
};

class MimiResnetBlock : public MimiStage {
 public:
  MimiResnetBlock(const ModuleOptions& options, const MimiConfig& c, int64_t dim, int64_t dilation)
      : MimiStage("MimiResnetBlock", options),
        block(*child<ModuleList<MimiStage>>("block")),
        shortcut(c.shortcut
                     ? child<MimiConv1d>("shortcut", WaveConvShape{.in = dim, .out = dim, .kernel = 1}, c.replicates)
                     : nullptr) {
    const int64_t hidden = dim / c.compress;
    block.append(c10::make_intrusive<MimiElu>(options));
    block.append(c10::make_intrusive<MimiConv1d>(
        options, WaveConvShape{.in = dim, .out = hidden, .kernel = c.residual_kernel, .dilation = dilation},
        c.replicates));
    block.append(c10::make_intrusive<MimiElu>(options));
    block.append(
        c10::make_intrusive<MimiConv1d>(options, WaveConvShape{.in = hidden, .out = dim, .kernel = 1}, c.replicates));
  }
  Tensor forward(const Tensor& x, MimiPass& pass) const override {
    Tensor y = x;
    for (const MimiStage* stage : block) y = stage->forward(y, pass);
    return watched(x, (shortcut != nullptr ? shortcut->forward(x, pass) : x) + y);
  }

 private:
  ModuleList<MimiStage>& block;
  const MimiConv1d* const shortcut;  // null: the input itself
};

// Stages one after another.
class MimiSeanet : public Block {
 public:
  Tensor forward(const Tensor& x, MimiPass& pass) const {
    Tensor y = x;
    for (const MimiStage* stage : layers) y = stage->forward(y, pass);
    return watched(x, y);
  }

 protected:
  MimiSeanet(const char* kind, const ModuleOptions& options)
      : Block(kind, options), layers(*child<ModuleList<MimiStage>>("layers")) {}
  void add_elu() { layers.append(c10::make_intrusive<MimiElu>(options)); }
  void add_conv(const MimiConfig& c, const WaveConvShape& shape) {
    layers.append(c10::make_intrusive<MimiConv1d>(options, shape, c.replicates));
  }
  void add_residual(const MimiConfig& c, int64_t dim) {
    int64_t dilation = 1;
    for (int64_t i = 0; i < c.residual_layers; ++i, dilation *= c.dilation_growth) {
      layers.append(c10::make_intrusive<MimiResnetBlock>(options, c, dim, dilation));
    }
  }
  ModuleList<MimiStage>& layers;
};

class MimiEncoder : public MimiSeanet {
 public:
  MimiEncoder(const ModuleOptions& options, const MimiConfig& c) : MimiSeanet("MimiEncoder", options) {
    int64_t dim = c.filters;
    add_conv(c, {.in = c.channels, .out = dim, .kernel = c.kernel});
    for (auto ratio = c.ratios.rbegin(); ratio != c.ratios.rend(); ++ratio, dim *= 2) {
      add_residual(c, dim);
      add_elu();
      add_conv(c, {.in = dim, .out = 2 * dim, .kernel = 2 * *ratio, .stride = *ratio});
    }
    add_elu();
    add_conv(c, {.in = dim, .out = c.dim, .kernel = c.last_kernel});
  }
};

class MimiDecoder : public MimiSeanet {
 public:
  MimiDecoder(const ModuleOptions& options, const MimiConfig& c) : MimiSeanet("MimiDecoder", options) {
    int64_t dim = c.filters << c.ratios.size();
    add_conv(c, {.in = c.dim, .out = dim, .kernel = c.kernel});
    for (const int64_t ratio : c.ratios) {
      add_elu();
      layers.append(c10::make_intrusive<MimiConvTranspose1d>(
          options, WaveConvShape{.in = dim, .out = dim / 2, .kernel = 2 * ratio, .stride = ratio, .transposed = true}));
      dim /= 2;
      add_residual(c, dim);
    }
    add_elu();
    add_conv(c, {.in = dim, .out = c.channels, .kernel = c.last_kernel});
  }
};

class MimiLayerScale : public Block {
 public:
  MimiLayerScale(const ModuleOptions& options, const MimiConfig& c)
      : Block("MimiLayerScale", options), scale(parameter("scale", {c.dim}, init::constant(c.layer_scale))) {}
  Tensor forward(const Tensor& x) const { return watched(x, x * scale); }
  const Tensor scale;
};

class MimiAttention : public Block {
 public:
  MimiAttention(const ModuleOptions& options, const MimiConfig& c)
      : Block("MimiAttention", options),
        query(*child<Linear>("q_proj", c.dim, c.heads * c.head_dim, c.bias, c.std)),
        key(*child<Linear>("k_proj", c.dim, c.key_value_heads * c.head_dim, c.bias, c.std)),
        value(*child<Linear>("v_proj", c.dim, c.key_value_heads * c.head_dim, c.bias, c.std)),
        output(*child<Linear>("o_proj", c.heads * c.head_dim, c.dim, c.bias, c.std)),
        heads(c.heads),
        key_value_heads(c.key_value_heads),
        window(c.window),
        dropout(c.attention_dropout) {}

  Tensor forward(const Tensor& x, const nn::Rotation& rotation, MimiPass& pass, size_t layer) const {
    const Tensor q = rotation.apply(nn::split_heads(query.forward(x), heads));
    const KeysValues own{rotation.apply(nn::split_heads(key.forward(x), key_value_heads)),
                         nn::split_heads(value.forward(x), key_value_heads)};
    const auto [all, before] = pass.with_keys(own, layer, window);
    const int64_t group = heads / key_value_heads;
    const auto spread = [group](const Tensor& of) { return group == 1 ? of : of.repeat_interleave(group, 1); };
    return watched(x, output.forward(nn::join_heads(windowed(q, spread(all.first), spread(all.second), before))));
  }

 private:
  // Each query attends to `window` keys, its own the last of them. In blocks of queries, so that memory grows with the
  // length and not with its square.
  Tensor windowed(const Tensor& q, const Tensor& k, const Tensor& v, int64_t before) const {
    const double drop = training() ? dropout : 0;
    const int64_t time = q.size(2), block = std::max<int64_t>(window, 256);
    if (before == 0 && time <= window) return nn::scaled_attention(q, k, v, std::nullopt, drop, true);
    const auto integers = at::TensorOptions().dtype(at::kLong).device(q.device());
    std::vector<Tensor> parts;
    for (int64_t from = 0; from < time; from += block) {
      const int64_t count = std::min(block, time - from);
      const int64_t first = std::max<int64_t>(0, from + before - window + 1), keys = from + before + count - first;
      const Tensor queries = at::arange(from + before - first, keys, integers).unsqueeze(1);
      const Tensor places = at::arange(keys, integers).unsqueeze(0);
      const Tensor mask = (places <= queries) & (places > queries - window);
      parts.push_back(nn::scaled_attention(q.narrow(2, from, count), k.narrow(2, first, keys), v.narrow(2, first, keys),
                                           mask, drop));
    }
    return parts.size() == 1 ? parts.front() : at::cat(parts, 2);
  }

  Linear &query, &key, &value, &output;
  const int64_t heads, key_value_heads, window;
  const double dropout;
};

class MimiMlp : public Block {
 public:
  MimiMlp(const ModuleOptions& options, const MimiConfig& c)
      : Block("MimiMlp", options),
        up(*child<Linear>("fc1", c.dim, c.intermediate, false, c.std)),
        down(*child<Linear>("fc2", c.intermediate, c.dim, false, c.std)),
        activation(nn::activation(c.activation)) {}
  Tensor forward(const Tensor& x) const { return watched(x, down.forward(up.forward(x, activation))); }

 private:
  Linear &up, &down;
  const nn::Activation activation;
};

class MimiTransformerLayer : public Block {
 public:
  MimiTransformerLayer(const ModuleOptions& options, const MimiConfig& c)
      : Block("MimiTransformerLayer", options),
        attention(*child<MimiAttention>("self_attn", c)),
        mlp(*child<MimiMlp>("mlp", c)),
        attention_norm(*child<nn::LayerNorm>("input_layernorm", c.dim, c.norm_eps)),
        norm(*child<nn::LayerNorm>("post_attention_layernorm", c.dim, c.norm_eps)),
        attention_scale(*child<MimiLayerScale>("self_attn_layer_scale", c)),
        scale(*child<MimiLayerScale>("mlp_layer_scale", c)) {}

  Tensor forward(const Tensor& x, const nn::Rotation& rotation, MimiPass& pass, size_t layer) const {
    const Tensor attended = attention.forward(attention_norm.forward(x), rotation, pass, layer);
    const Tensor stream = x + attention_scale.forward(attended);
    return watched(x, stream + scale.forward(mlp.forward(norm.forward(stream))));
  }

 private:
  MimiAttention& attention;
  MimiMlp& mlp;
  nn::LayerNorm &attention_norm, &norm;
  MimiLayerScale &attention_scale, &scale;
};

class MimiTransformer : public Block {
 public:
  MimiTransformer(const ModuleOptions& options, const MimiConfig& c, const nn::Rotary& rotary)
      : Block("MimiTransformer", options), layers(*child<ModuleList<MimiTransformerLayer>>("layers")), rotary(rotary) {
    for (int64_t i = 0; i < c.layers; ++i) layers.add(c);
  }
  // input [batch, dim, time] -> the same; hidden states [batch, time, dim]
  Tensor forward(const Tensor& input, MimiPass& pass, std::vector<Tensor>* hidden_states) const {
    Tensor x = input.transpose(1, 2);
    const int64_t from = pass.next.position;
    const Tensor positions = at::arange(from, from + x.size(1), at::TensorOptions(x.device()).dtype(at::kLong));
    const nn::Rotation rotation = rotary.at(positions.unsqueeze(0), x.scalar_type());
    if (pass.streams) pass.next.position += x.size(1);
    for (size_t i = 0; i < layers.size(); ++i) {
      if (hidden_states != nullptr) hidden_states->push_back(x);
      x = layers[i].forward(x, rotation, pass, i);
    }
    if (hidden_states != nullptr) hidden_states->push_back(x);
    return watched(input, x.transpose(1, 2));
  }

 private:
  ModuleList<MimiTransformerLayer>& layers;
  const nn::Rotary& rotary;
};

// Vectors as their sums over the clips of training and the numbers of these.
class MimiCodebook : public Module {
 public:
  MimiCodebook(const ModuleOptions& options, const MimiConfig& c)
      : Module("MimiCodebook", options),
        initialized(buffer("initialized", {1}, options.dtype, init::ones())),
        usage(buffer("cluster_usage", {c.codebook_size}, options.dtype, init::ones())),
        sum(buffer("embed_sum", {c.codebook_size, c.codebook_dim}, options.dtype, init::zeros())) {}

  // [count, dim] -> int64 [count], the nearest vectors
  Tensor encode(const Tensor& x) const {
    const Tensor vectors = embeddings();
    const auto type = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    return at::cdist(x.to(type), vectors.to(type)).argmin(-1);
  }
  Tensor decode(const Tensor& codes) const { return at::embedding(embeddings(), codes); }

 private:
  static constexpr double kLeastUsage = 1e-5;

  // Kept until the buffers change, because a stream needs all of them for each frame.
  Tensor embeddings() const {
    const auto version = [](const Tensor& of) { return of.is_inference() ? 0 : of._version(); };
    const std::vector<uintptr_t> now{reinterpret_cast<uintptr_t>(sum.const_data_ptr()),
                                     reinterpret_cast<uintptr_t>(usage.const_data_ptr()),
                                     static_cast<uintptr_t>(version(sum)), static_cast<uintptr_t>(version(usage))};
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!embeddings_.defined() || now != identity_ || embeddings_.scalar_type() != sum.scalar_type()) {
      const c10::InferenceMode normal(false);
      const at::NoGradGuard unrecorded;
      embeddings_ = sum / usage.clamp_min(kLeastUsage).unsqueeze(1);
      identity_ = now;
    }
    return embeddings_;
  }

  const Tensor initialized, usage, sum;
  mutable std::mutex mutex_;
  mutable Tensor embeddings_;
  mutable std::vector<uintptr_t> identity_;
};

class MimiVectorQuantization : public Module {
 public:
  MimiVectorQuantization(const ModuleOptions& options, const MimiConfig& c)
      : Module("MimiVectorQuantization", options), codebook(*child<MimiCodebook>("codebook", c)) {}
  MimiCodebook& codebook;
};

class MimiResidualQuantizer : public Module {
 public:
  MimiResidualQuantizer(const ModuleOptions& options, const MimiConfig& c, int64_t count)
      : Module("MimiResidualVectorQuantizer", options),
        layers(*child<ModuleList<MimiVectorQuantization>>("layers")),
        projects(c.codebook_dim != c.dim),
        input(projects ? child<WaveConv1d>("input_proj", projection(c.dim, c.codebook_dim)) : nullptr),
        output(projects ? child<WaveConv1d>("output_proj", projection(c.codebook_dim, c.dim)) : nullptr) {
    for (int64_t i = 0; i < count; ++i) layers.add(c);
  }

  // latents [batch, dim, time] -> codes of the first `count` quantizers, each int64 [batch, time]
  void encode(const Tensor& latents, int64_t count, std::vector<Tensor>& codes) const {
    Tensor rest =
        (input != nullptr ? input->forward(latents) : latents).transpose(1, 2);  // [batch, time, codebook_dim]
    for (int64_t i = 0; i < count; ++i) {
      const MimiCodebook& codebook = layers[static_cast<size_t>(i)].codebook;
      codes.push_back(codebook.encode(rest.flatten(0, 1)).view({rest.size(0), rest.size(1)}));
      rest = rest - codebook.decode(codes.back());
    }
  }

  // codes int64 [batch, quantizers, time] -> [batch, dim, time]
  Tensor decode(const Tensor& codes) const {
    Tensor sum;
    for (int64_t i = 0; i < codes.size(1); ++i) {
      const Tensor one = layers[static_cast<size_t>(i)].codebook.decode(codes.select(1, i));
      sum = sum.defined() ? sum + one : one;
    }
    sum = sum.transpose(1, 2);
    return output != nullptr ? output->forward(sum) : sum;
  }

 private:
  static WaveConvShape projection(int64_t in, int64_t out) {
    return with_std({.in = in, .out = out, .kernel = 1, .bias = false});
  }

  ModuleList<MimiVectorQuantization>& layers;
  const bool projects;
  const WaveConv1d *const input, *const output;
};

class MimiQuantizer : public Module {
 public:
  MimiQuantizer(const ModuleOptions& options, const MimiConfig& c)
      : Module("MimiSplitResidualVectorQuantizer", options),
        semantic(*child<MimiResidualQuantizer>("semantic_residual_vector_quantizer", c, c.semantic_quantizers)),
        acoustic(*child<MimiResidualQuantizer>("acoustic_residual_vector_quantizer", c,
                                               c.quantizers - c.semantic_quantizers)),
        semantic_count(c.semantic_quantizers) {}

  Tensor encode(const Tensor& latents, int64_t count) const {
    const at::NoGradGuard unrecorded;
    std::vector<Tensor> codes;
    semantic.encode(latents, semantic_count, codes);
    if (count > semantic_count) acoustic.encode(latents, count - semantic_count, codes);
    return at::stack(codes, 1);  // [batch, count, time]
  }
  Tensor decode(const Tensor& codes) const {
    const int64_t count = codes.size(1);
    const Tensor first = semantic.decode(codes.narrow(1, 0, std::min(semantic_count, count)));
    return count > semantic_count ? first + acoustic.decode(codes.narrow(1, semantic_count, count - semantic_count))
                                  : first;
  }

 private:
  MimiResidualQuantizer &semantic, &acoustic;
  const int64_t semantic_count;
};

class Mimi : public Module {
 public:
  Mimi(const ModuleOptions& options, const Config& settings)
      : Module("Mimi", options),
        config(settings),
        rotary(settings, config.head_dim, config.max_positions),
        encoder(*child<MimiEncoder>("encoder", config)),
        encoder_transformer(*child<MimiTransformer>("encoder_transformer", config, rotary)),
        downsample(*child<MimiConv1d>("downsample",
                                      WaveConvShape{.in = config.dim,
                                                    .out = config.dim,
                                                    .kernel = 2 * config.latent_stride,
                                                    .stride = config.latent_stride,
                                                    .bias = false},
                                      /*replicates=*/true)),
        upsample(*child<MimiConvTranspose1d>("upsample", WaveConvShape{.in = config.dim,
                                                                       .out = config.dim,
                                                                       .kernel = 2 * config.latent_stride,
                                                                       .stride = config.latent_stride,
                                                                       .groups = config.upsample_groups,
                                                                       .transposed = true,
                                                                       .bias = false})),
        decoder_transformer(*child<MimiTransformer>("decoder_transformer", config, rotary)),
        decoder(*child<MimiDecoder>("decoder", config)),
        quantizer(*child<MimiQuantizer>("quantizer", config)) {}

  // samples [batch, channels, time] -> [batch, dim, frames]
  Tensor latents(const Tensor& samples, MimiPass& pass, std::vector<Tensor>* hidden_states) const {
    TORCH_CHECK(samples.dim() == 3 && samples.size(0) > 0 && samples.size(1) == config.channels &&
                    samples.size(2) > 0 && samples.is_floating_point(),
                "input_values must be [batch, ", config.channels, ", samples] of a floating-point dtype, got ",
                samples.scalar_type(), " ", samples.sizes());
    const Tensor x = encoder.forward(samples.to(options_dtype()), pass);
    return downsample.forward(encoder_transformer.forward(x, pass, hidden_states), pass);
  }

  Tensor decode(const Tensor& latents, MimiPass& pass, std::vector<Tensor>* hidden_states) const {
    TORCH_CHECK(latents.dim() == 3 && latents.size(0) > 0 && latents.size(1) == config.dim && latents.size(2) > 0,
                "latents must be [batch, ", config.dim, ", frames], got ", latents.sizes());
    const Tensor x = upsample.forward(latents.to(options_dtype()), pass);
    return decoder.forward(decoder_transformer.forward(x, pass, hidden_states), pass);
  }

  // codes int64 [batch, quantizers, frames] -> [batch, dim, frames]
  Tensor dequantize(const Tensor& codes) const {
    TORCH_CHECK(codes.dim() == 3 && codes.scalar_type() == at::kLong && codes.size(0) > 0 && codes.size(1) > 0 &&
                    codes.size(1) <= config.quantizers && codes.size(2) > 0,
                "audio_codes must be int64 [batch, 1 to ", config.quantizers, " quantizers, frames], got ",
                codes.scalar_type(), " ", codes.sizes());
    // Codes of a device are not read here, because the host would wait for them at each frame of a stream.
    if (codes.is_cpu()) {
      const int64_t least = codes.min().item<int64_t>(), most = codes.max().item<int64_t>();
      TORCH_CHECK(least >= 0 && most < config.codebook_size, "audio_codes must be from 0 to ", config.codebook_size - 1,
                  ", got ", least < 0 ? least : most);
    }
    return quantizer.decode(upload(codes, upsample.all_parameters().front().device()));
  }

  int64_t wanted(std::optional<int64_t> quantizers) const {
    const int64_t count = quantizers.value_or(config.quantizers);
    TORCH_CHECK(count >= config.semantic_quantizers && count <= config.quantizers, "num_quantizers: expected ",
                config.semantic_quantizers, " to ", config.quantizers, ", got ", count);
    return count;
  }

  const MimiConfig config;
  const nn::Rotary rotary;
  MimiEncoder& encoder;
  MimiTransformer& encoder_transformer;
  MimiConv1d& downsample;
  MimiConvTranspose1d& upsample;
  MimiTransformer& decoder_transformer;
  MimiDecoder& decoder;
  MimiQuantizer& quantizer;

 private:
  at::ScalarType options_dtype() const { return upsample.all_parameters().front().scalar_type(); }
};

using ModulePtr = c10::intrusive_ptr<Module>;
using OptionalModule = std::optional<ModulePtr>;
using MaybeTensor = std::optional<Tensor>;
using Tensors = std::vector<Tensor>;

MimiState* state_of(const OptionalModule& module, int64_t batch) {
  if (!module) return nullptr;
  auto& state = network<MimiState>(*module, "mimi");
  TORCH_CHECK(state.batch == 0 || state.batch == batch, "the stream has ", state.batch, " rows, but the input has ",
              batch);
  return &state;
}

// After a pass that did not throw.
void keep(MimiState* state, MimiPass& pass, int64_t batch) {
  if (state == nullptr) return;
  state->past = std::move(pass.next);
  state->batch = batch;
}

std::tuple<Tensor, Tensor, Tensors> mimi_encode(const ModulePtr& self, const Tensor& samples,
                                                std::optional<int64_t> quantizers, const OptionalModule& stream,
                                                bool hidden_states) {
  const auto& mimi = network<Mimi>(self, "mimi_encode");
  const int64_t count = mimi.wanted(quantizers), batch = samples.dim() > 0 ? samples.size(0) : 0;
  MimiState* const state = state_of(stream, batch);
  const at::AutoGradMode recording(at::GradMode::is_enabled() && state == nullptr);
  MimiPass pass(state);
  Tensors states;
  const Tensor latents = mimi.latents(samples, pass, hidden_states ? &states : nullptr);
  Tensor codes = mimi.quantizer.encode(latents, count);
  keep(state, pass, batch);
  return {codes, latents, std::move(states)};
}

std::tuple<Tensor, Tensor, Tensors> mimi_decode(const ModulePtr& self, const MaybeTensor& codes,
                                                const MaybeTensor& given, const OptionalModule& stream,
                                                bool hidden_states) {
  const auto& mimi = network<Mimi>(self, "mimi_decode");
  TORCH_CHECK(codes.has_value() != given.has_value(), "expected either audio_codes or latents, got ",
              codes ? "both" : "neither");
  const Tensor& input = codes ? *codes : *given;
  const int64_t batch = input.dim() > 0 ? input.size(0) : 0;
  MimiState* const state = state_of(stream, batch);
  const at::AutoGradMode recording(at::GradMode::is_enabled() && state == nullptr);
  MimiPass pass(state);
  Tensors states;
  const Tensor latents = codes ? mimi.dequantize(*codes) : *given;
  Tensor audio = mimi.decode(latents, pass, hidden_states ? &states : nullptr);
  keep(state, pass, batch);
  return {audio, latents, std::move(states)};
}

std::tuple<Tensor, Tensor> mimi_forward(const ModulePtr& self, const MaybeTensor& samples, const MaybeTensor& mask,
                                        const MaybeTensor& given, std::optional<int64_t> quantizers) {
  TORCH_CHECK(samples || given, "expected input_values or audio_codes, got neither");
  TORCH_CHECK(!given || !quantizers, "num_quantizers: expected none with audio_codes, got ", *quantizers);
  const Tensor codes = given ? *given : std::get<0>(mimi_encode(self, *samples, quantizers, {}, false));
  Tensor audio = std::get<0>(mimi_decode(self, codes, {}, {}, false));
  const auto length = mask ? std::optional(mask->size(-1)) : samples ? std::optional(samples->size(-1)) : std::nullopt;
  if (length && *length < audio.size(-1)) audio = audio.narrow(-1, 0, *length);
  return {codes, audio};
}

const RegisteredModule registered_mimi("mimi", make_module<Mimi>);
const RegisteredModule registered_mimi_state("mimi_state", make_module<MimiState>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // stream: a mimi_state, which the pass continues and then holds. Nothing is recorded for backward then.
  m.def(
      "mimi_encode(__torch__.torch.classes.voxtorch.Module self, Tensor input_values, *, int? num_quantizers=None, "
      "__torch__.torch.classes.voxtorch.Module? stream=None, bool output_hidden_states=False) -> (Tensor audio_codes, "
      "Tensor latents, Tensor[] hidden_states)",
      mimi_encode);
  m.def(
      "mimi_decode(__torch__.torch.classes.voxtorch.Module self, Tensor? audio_codes=None, *, Tensor? latents=None, "
      "__torch__.torch.classes.voxtorch.Module? stream=None, bool output_hidden_states=False) -> (Tensor audio_values, "
      "Tensor latents, Tensor[] hidden_states)",
      mimi_decode);
  m.def(
      "mimi_forward(__torch__.torch.classes.voxtorch.Module self, Tensor? input_values=None, *, Tensor? "
      "padding_mask=None, Tensor? audio_codes=None, int? num_quantizers=None) -> (Tensor audio_codes, Tensor "
      "audio_values)",
      mimi_forward);
}

}  // namespace voxtorch::models

// Moonshine (Jeffries et al. 2024, https://arxiv.org/abs/2410.15608): speech recognition from samples, with the names
// of transformers' MoonshineForConditionalGeneration. Convolutions make a frame of 384 samples; the encoder's layers
// and the decoder's self-attention rotate neighboring dimensions of each head by the position.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <torch/library.h>

#include <algorithm>

#include "core/generation/cached_stepper.h"
#include "core/kernels/layer_norm/layer_norm.h"
#include "core/nn/checkpoint.h"
#include "core/nn/conv.h"
#include "core/nn/embedding.h"
#include "core/nn/kv_cache.h"
#include "core/nn/linear.h"
#include "core/nn/rotary.h"
#include "core/nn/tied_head.h"
#include "core/runtime/transfers.h"

namespace voxtorch::models {
namespace {

using at::Tensor;
using nn::Conv1d;
using nn::KvCache;
using nn::Linear;
using KeysValues = std::pair<Tensor, Tensor>;  // [batch, heads, time, head_dim]

// Samples of the first frame, and from a frame to the next.
constexpr int64_t kFirstSamples = 895, kSamplesPerFrame = 384;

struct MoonshineConfig {
  explicit MoonshineConfig(const Config& config)
      : vocabulary(config.integer("vocab_size")),
        dim(config.integer("hidden_size")),
        intermediate(config.integer("intermediate_size")),
        encoder_layers(config.integer("encoder_num_hidden_layers")),
        decoder_layers(config.integer("decoder_num_hidden_layers")),
        heads(config.integer("encoder_num_attention_heads")),
        padding(config.integer("pad_token_id", -1)),
        start(config.integer("decoder_start_token_id")),
        std(config.number("initializer_range", 0.02)),
        attention_dropout(config.probability("attention_dropout", 0)),
        encoder_activation(config.text("encoder_hidden_act", "gelu")),
        decoder_activation(config.text("decoder_hidden_act", "silu")),
        bias(config.boolean("attention_bias", false)),
        tied(config.boolean("tie_word_embeddings", true)) {
    TORCH_CHECK(vocabulary > 0 && dim > 0 && intermediate > 0,
                "vocab_size, hidden_size and intermediate_size must be positive, got ", vocabulary, ", ", dim, " and ",
                intermediate);
    TORCH_CHECK(encoder_layers >= 0 && decoder_layers >= 0,
                "encoder_num_hidden_layers and decoder_num_hidden_layers must not be negative, got ", encoder_layers,
                " and ", decoder_layers);
    TORCH_CHECK(heads > 0 && dim % heads == 0, "hidden_size ", dim, " is not divisible by encoder_num_attention_heads ",
                heads);
    // transformers builds both parts with the heads of the encoder, and has no grouped queries.
    for (const char* key :
         {"decoder_num_attention_heads", "encoder_num_key_value_heads", "decoder_num_key_value_heads"}) {
      TORCH_CHECK(config.integer(key, heads) == heads, key, ": expected encoder_num_attention_heads, ", heads, ", got ",
                  config.integer(key, heads));
    }
    TORCH_CHECK(padding < vocabulary, "pad_token_id ", padding, " is not below vocab_size ", vocabulary);
    TORCH_CHECK(start >= 0 && start < vocabulary, "decoder_start_token_id ", start, " is not below vocab_size ",
                vocabulary);
  }

  int64_t vocabulary, dim, intermediate, encoder_layers, decoder_layers, heads;
  int64_t padding, start;  // pad_token_id (-1: none), decoder_start_token_id
  double std, attention_dropout;
  std::string encoder_activation, decoder_activation;
  bool bias, tied;
};

// The same as nn::LayerNorm without a bias.
class MoonshineNorm : public Block {
 public:
  MoonshineNorm(const ModuleOptions& options, int64_t dim)
      : Block("MoonshineNorm", options), weight(parameter("weight", {dim}, init::ones())) {}
  Tensor forward(const Tensor& x) const {
    return watched(x, kernels::layer_norm(x, weight.sizes(), weight, std::nullopt, 1e-5));
  }
  const Tensor weight;
};

// Dimensions 2i and 2i + 1 of a head rotate together; those after the rotated ones stay as they are.
Tensor rotate_pairs(const nn::Rotation& rotation, const Tensor& x) {
  const int64_t pairs = rotation.cos.size(-1), rest = x.size(-1) - 2 * pairs;
  const Tensor rotated = x.narrow(-1, 0, 2 * pairs).unflatten(-1, {pairs, 2});
  const Tensor even = rotated.select(-1, 0), odd = rotated.select(-1, 1);
  const Tensor result =
      at::stack({even * rotation.cos - odd * rotation.sin, odd * rotation.cos + even * rotation.sin}, -1).flatten(-2);
  return rest == 0 ? result : at::cat({result, x.narrow(-1, 2 * pairs, rest)}, -1);
}

class MoonshineAttention : public Block {
 public:
  MoonshineAttention(const ModuleOptions& options, const MoonshineConfig& c)
      : Block("MoonshineAttention", options),
        query(*child<Linear>("q_proj", c.dim, c.dim, c.bias, c.std)),
        key(*child<Linear>("k_proj", c.dim, c.dim, c.bias, c.std)),
        value(*child<Linear>("v_proj", c.dim, c.dim, c.bias, c.std)),
        output(*child<Linear>("o_proj", c.dim, c.dim, false, c.std)),
        heads(c.heads),
        dropout(c.attention_dropout) {}

  KeysValues keys_values(const Tensor& source, const nn::Rotation* rotation) const {
    const Tensor keys = nn::split_heads(key.forward(source), heads);
    return {rotation != nullptr ? rotate_pairs(*rotation, keys) : keys, nn::split_heads(value.forward(source), heads)};
  }

  // The output [batch, time, dim] of x [batch, time, dim]. `causal`: in place of a mask.
  nn::Attended forward(const Tensor& x, const KeysValues& keys, const nn::Rotation* rotation, const Tensor& mask,
                       bool causal, bool with_weights) const {
    Tensor q = nn::split_heads(query.forward(x), heads);
    if (rotation != nullptr) q = rotate_pairs(*rotation, q);
    const double drop = training() ? dropout : 0;
    // Several rows may follow each other for each row of audio.
    const int64_t group = q.size(0) / keys.first.size(0);
    const auto spread = [group](const Tensor& of) { return group == 1 ? of : of.repeat_interleave(group, 0); };
    const Tensor k = spread(keys.first), v = spread(keys.second);
    nn::Attended result;
    if (causal) {
      result.output = nn::scaled_attention(q, k, v, std::nullopt, drop, true);
    } else {
      result =
          nn::attend(q, k, v, mask.defined() && mask.size(0) > 1 ? spread_mask(mask, q) : mask, drop, with_weights);
    }
    result.output = watched(x, output.forward(nn::join_heads(result.output)));
    return result;
  }

 private:
  static Tensor spread_mask(const Tensor& mask, const Tensor& q) {
    return mask.size(0) == q.size(0) ? mask : mask.repeat_interleave(q.size(0) / mask.size(0), 0);
  }

  Linear &query, &key, &value, &output;
  const int64_t heads;
  const double dropout;
};

// The encoder's: W₂ activation(W₁ x). The decoder's is gated: W₁ x is a and b, W₂ (activation(b) · a).
class MoonshineFeedForward : public Block {
 public:
  MoonshineFeedForward(const ModuleOptions& options, const MoonshineConfig& c, bool gated)
      : Block("MoonshineFeedForward", options),
        up(*child<Linear>("fc1", c.dim, gated ? 2 * c.intermediate : c.intermediate, init::normal(c.std),
                          init::zeros())),
        down(*child<Linear>("fc2", c.intermediate, c.dim, init::normal(c.std), init::zeros())),
        activation(nn::activation(gated ? c.decoder_activation : c.encoder_activation)),
        gated(gated) {}

  Tensor forward(const Tensor& x) const {
    if (!gated) return watched(x, down.forward(up.forward(x, activation)));
    const auto halves = up.forward(x).chunk(2, -1);
    return watched(x, down.forward(activation(halves[1]) * halves[0]));
  }

 private:
  Linear &up, &down;
  const nn::Activation activation;
  const bool gated;
};

struct MoonshinePass {
  const nn::Rotation* rotation = nullptr;
  Tensor mask;          // bool [batch or 1, 1, time or 1, keys]; undefined: all, or see `causal`
  bool causal = false;  // without a mask: each query sees the keys up to its own
  Tensor encoder_mask;  // bool [batch, 1, 1, frames]
  KvCache *cache = nullptr, *encoder_cache = nullptr;
  bool with_weights = false;
};

struct MoonshineLayered {
  Tensor output, weights, cross_weights;
};

class MoonshineEncoderLayer : public Block {
 public:
  MoonshineEncoderLayer(const ModuleOptions& options, const MoonshineConfig& c)
      : Block("MoonshineEncoderLayer", options),
        attention(*child<MoonshineAttention>("self_attn", c)),
        feed_forward(*child<MoonshineFeedForward>("mlp", c, false)),
        attention_norm(*child<MoonshineNorm>("input_layernorm", c.dim)),
        norm(*child<MoonshineNorm>("post_attention_layernorm", c.dim)) {}

  MoonshineLayered forward(const Tensor& x, const MoonshinePass& pass) const {
    const Tensor normed = attention_norm.forward(x);
    const KeysValues keys = attention.keys_values(normed, pass.rotation);
    const nn::Attended own = attention.forward(normed, keys, pass.rotation, pass.mask, false, pass.with_weights);
    const Tensor stream = x + own.output;
    return {watched(x, stream + feed_forward.forward(norm.forward(stream))), own.weights, {}};
  }

 private:
  MoonshineAttention& attention;
  MoonshineFeedForward& feed_forward;
  MoonshineNorm &attention_norm, &norm;
};

class MoonshineDecoderLayer : public Block {
 public:
  MoonshineDecoderLayer(const ModuleOptions& options, const MoonshineConfig& c, size_t index)
      : Block("MoonshineDecoderLayer", options),
        attention(*child<MoonshineAttention>("self_attn", c)),
        cross(*child<MoonshineAttention>("encoder_attn", c)),
        feed_forward(*child<MoonshineFeedForward>("mlp", c, true)),
        attention_norm(*child<MoonshineNorm>("input_layernorm", c.dim)),
        cross_norm(*child<MoonshineNorm>("post_attention_layernorm", c.dim)),
        norm(*child<MoonshineNorm>("final_layernorm", c.dim)),
        index(index) {}

  MoonshineLayered forward(const Tensor& x, const Tensor& encoder_states, const MoonshinePass& pass) const {
    Tensor normed = attention_norm.forward(x);
    KeysValues keys = attention.keys_values(normed, pass.rotation);
    if (pass.cache != nullptr) keys = pass.cache->append(index, keys.first, keys.second);
    const nn::Attended own = attention.forward(normed, keys, pass.rotation, pass.mask, pass.causal, pass.with_weights);
    Tensor stream = x + own.output;

    normed = cross_norm.forward(stream);
    keys = pass.encoder_cache != nullptr ? pass.encoder_cache->get(index) : cross.keys_values(encoder_states, nullptr);
    const nn::Attended heard = cross.forward(normed, keys, nullptr, pass.encoder_mask, false, pass.with_weights);
    stream = stream + heard.output;
    return {watched(x, stream + feed_forward.forward(norm.forward(stream))), own.weights, heard.weights};
  }

  MoonshineAttention &attention, &cross;

 private:
  MoonshineFeedForward& feed_forward;
  MoonshineNorm &attention_norm, &cross_norm, &norm;
  const size_t index;
};

// A layer's pass, which keeps only its inputs where activation checkpointing is on.
template <typename Layer, typename Run>
MoonshineLayered layer_pass(Layer& layer, const nn::Checkpointing& stack, const nn::Tensors& inputs, bool with_weights,
                            const Run& run) {
  if (!nn::should_checkpoint(stack)) return run(inputs);
  const nn::Tensors outputs = nn::checkpoint(layer, inputs, [run, with_weights](const nn::Tensors& in) -> nn::Tensors {
    const MoonshineLayered again = run(in);
    if (!with_weights) return {again.output};
    if (!again.cross_weights.defined()) return {again.output, again.weights};
    return {again.output, again.weights, again.cross_weights};
  });
  return {outputs[0], with_weights ? outputs[1] : Tensor(), outputs.size() > 2 ? outputs[2] : Tensor()};
}

struct MoonshineEncoded {
  Tensor last_hidden_state;           // [batch, frames, dim]
  Tensor mask;                        // bool [batch, frames]; undefined: all frames are valid
  std::vector<Tensor> hidden_states;  // the input of each layer, and the output
  std::vector<Tensor> attentions;
};

class MoonshineEncoder : public Block, public nn::Checkpointing {
 public:
  MoonshineEncoder(const ModuleOptions& options, const MoonshineConfig& c, const nn::Rotary& rotary)
      : Block("MoonshineEncoder", options),
        conv1(*child<Conv1d>("conv1", shape(c, {1, c.dim, 127, 64, false}))),
        conv2(*child<Conv1d>("conv2", shape(c, {c.dim, 2 * c.dim, 7, 3}))),
        conv3(*child<Conv1d>("conv3", shape(c, {2 * c.dim, c.dim, 3, 2}))),
        group_norm(*child<nn::GroupNorm>("groupnorm", 1, c.dim)),
        layers(*child<ModuleList<MoonshineEncoderLayer>>("layers")),
        norm(*child<MoonshineNorm>("layer_norm", c.dim)),
        rotary(rotary) {
    for (int64_t i = 0; i < c.encoder_layers; ++i) layers.add(c);
  }

  // samples [batch, time]; mask [batch, time], 1 for audio. As in transformers the convolutions and their norm see
  // padding; the attention does not.
  MoonshineEncoded forward(const Tensor& samples, const Tensor& mask, bool hidden_states, bool attentions) const {
    TORCH_CHECK(samples.dim() == 2 && samples.size(0) > 0 && samples.is_floating_point(),
                "input_values must be [batch, samples] of a floating-point dtype, got ", samples.scalar_type(), " ",
                samples.sizes());
    TORCH_CHECK(samples.size(1) >= kFirstSamples, "input_values must have at least ", kFirstSamples,
                " samples, those of the first frame, got ", samples.size(1));
    TORCH_CHECK(!mask.defined() || mask.sizes().equals(samples.sizes()), "attention_mask must be ", samples.sizes(),
                " like input_values, got ", mask.sizes());
    Tensor x = at::tanh(conv1.forward(samples.to(conv1.weight.scalar_type()).unsqueeze(1)));
    x = at::gelu(conv2.forward(group_norm.forward(x)));
    x = at::gelu(conv3.forward(x)).transpose(1, 2);  // [batch, frames, dim]
    MoonshineEncoded result;
    MoonshinePass pass;
    pass.with_weights = attentions;
    if (mask.defined()) {
      const Tensor frames = mask.to(at::kBool).slice(1, 0, mask.size(1), kSamplesPerFrame).narrow(1, 0, x.size(1));
      result.mask = upload(frames.contiguous(), samples.device());
      pass.mask = nn::attention_mask(nn::mask_for(frames, samples.device()));
    }
    const Tensor positions = at::arange(x.size(1), at::TensorOptions().dtype(at::kLong).device(x.device()));
    const nn::Rotation rotation = rotary.at(positions.unsqueeze(0), x.scalar_type());
    pass.rotation = &rotation;
    for (MoonshineEncoderLayer* layer : layers) {
      if (hidden_states) result.hidden_states.push_back(x);
      // A second run for gradients comes after this frame, so it needs its own rotation.
      MoonshineLayered one = layer_pass(*layer, *this, {x}, attentions, [layer, pass, rotation](const nn::Tensors& in) {
        MoonshinePass again = pass;
        again.rotation = &rotation;
        return layer->forward(in[0], again);
      });
      x = std::move(one.output);
      if (attentions) result.attentions.push_back(std::move(one.weights));
    }
    result.last_hidden_state = watched(samples, norm.forward(x));
    if (hidden_states) result.hidden_states.push_back(result.last_hidden_state);
    return result;
  }

 private:
  static nn::Conv1dShape shape(const MoonshineConfig& c, nn::Conv1dShape of) {
    of.std = c.std;
    of.zero_bias = true;
    return of;
  }

  Conv1d &conv1, &conv2, &conv3;
  nn::GroupNorm& group_norm;
  ModuleList<MoonshineEncoderLayer>& layers;
  MoonshineNorm& norm;
  const nn::Rotary& rotary;
};

struct MoonshineDecoderInputs {
  Tensor ids;             // int64 [batch, time]
  Tensor mask;            // [batch, past + time], 1 for tokens; undefined: all are
  Tensor positions;       // int64 [batch or 1, time]; undefined: counted from the past, padding too, as in transformers
  Tensor encoder_states;  // [audio rows, frames, dim]; undefined with a filled encoder_cache
  Tensor encoder_mask;    // bool [audio rows, frames]; undefined: all frames are valid
  KvCache *cache = nullptr, *encoder_cache = nullptr;
};

struct MoonshineDecoded {
  Tensor last_hidden_state;  // [batch, time, dim]
  std::vector<Tensor> hidden_states, attentions, cross_attentions;
};

class MoonshineDecoder : public Block, public nn::Checkpointing {
 public:
  MoonshineDecoder(const ModuleOptions& options, const MoonshineConfig& c, const nn::Rotary& rotary)
      : Block("MoonshineDecoder", options),
        embeddings(*child<nn::Embedding>("embed_tokens", c.vocabulary, c.dim, c.padding, c.std)),
        layers(*child<ModuleList<MoonshineDecoderLayer>>("layers")),
        norm(*child<MoonshineNorm>("norm", c.dim)),
        dim(c.dim),
        rotary(rotary) {
    for (int64_t i = 0; i < c.decoder_layers; ++i) layers.add(c, static_cast<size_t>(i));
  }

  MoonshineDecoded forward(const MoonshineDecoderInputs& inputs, bool hidden_states, bool attentions) const {
    check(inputs);
    const Tensor& ids = inputs.ids;
    const auto integers = at::TensorOptions().dtype(at::kLong).device(ids.device());
    const int64_t past = inputs.cache != nullptr ? inputs.cache->length() : 0, time = ids.size(1);
    const at::ScalarType type = embeddings.weight.scalar_type();
    Tensor positions = inputs.positions;
    if (!positions.defined()) positions = at::arange(past, past + time, integers).unsqueeze(0);
    const nn::Rotation rotation = rotary.at(positions, type);
    MoonshinePass pass;
    pass.with_weights = attentions;
    pass.cache = inputs.cache;
    pass.encoder_cache = inputs.encoder_cache;
    pass.encoder_mask = nn::attention_mask(nn::mask_for(inputs.encoder_mask, ids.device()));
    set_mask(pass, nn::mask_for(inputs.mask.defined() ? inputs.mask.to(at::kBool) : Tensor(), ids.device()), past, time,
             integers);
    const Tensor heard = inputs.encoder_states.defined() ? inputs.encoder_states.to(type) : Tensor();
    if (pass.encoder_cache != nullptr && pass.encoder_cache->length() == 0) read_encoder(heard, *pass.encoder_cache);

    MoonshineDecoded result;
    Tensor x = embeddings.forward(ids, type);
    const bool cached = pass.cache != nullptr || pass.encoder_cache != nullptr;
    for (MoonshineDecoderLayer* layer : layers) {
      if (hidden_states) result.hidden_states.push_back(x);
      const auto run = [layer, pass, rotation](const nn::Tensors& in) {
        MoonshinePass again = pass;
        again.rotation = &rotation;
        return layer->forward(in[0], in[1], again);
      };
      MoonshineLayered one = cached ? run({x, heard}) : layer_pass(*layer, *this, {x, heard}, attentions, run);
      x = std::move(one.output);
      if (attentions) {
        result.attentions.push_back(std::move(one.weights));
        result.cross_attentions.push_back(std::move(one.cross_weights));
      }
    }
    result.last_hidden_state = watched(ids, norm.forward(x));
    if (hidden_states) result.hidden_states.push_back(result.last_hidden_state);
    if (pass.cache != nullptr) pass.cache->advance(time);
    return result;
  }

  nn::Embedding& embeddings;

 private:
  // Every query sees itself, padding too, so that its unused result stays finite.
  static void set_mask(MoonshinePass& pass, const Tensor& valid, int64_t past, int64_t time,
                       const at::TensorOptions& integers) {
    if (!valid.defined() && (time == 1 || (past == 0 && !pass.with_weights))) {
      pass.causal = time > 1;
      return;
    }
    const Tensor queries = at::arange(past, past + time, integers).unsqueeze(1);
    const Tensor keys = at::arange(past + time, integers).unsqueeze(0);
    pass.mask = (keys <= queries).unsqueeze(0).unsqueeze(0);
    if (valid.defined()) pass.mask = (pass.mask & valid.unsqueeze(1).unsqueeze(1)) | (keys == queries);
  }

  void read_encoder(const Tensor& states, KvCache& cache) const {
    const at::NoGradGuard unrecorded;
    for (size_t i = 0; i < layers.size(); ++i) {
      const KeysValues keys = layers[i].cross.keys_values(states, nullptr);
      cache.append(i, keys.first, keys.second);
    }
    cache.advance(states.size(1));
  }

  void check(const MoonshineDecoderInputs& inputs) const {
    const Tensor& ids = inputs.ids;
    TORCH_CHECK(ids.defined() && ids.dim() == 2 && ids.size(0) > 0 && ids.size(1) > 0,
                "decoder_input_ids must be [batch, time], at least one token, got ",
                ids.defined() ? ids.sizes() : at::IntArrayRef{});
    const int64_t batch = ids.size(0), time = ids.size(1), count = static_cast<int64_t>(layers.size());
    const int64_t past = inputs.cache != nullptr ? inputs.cache->length() : 0;
    if (inputs.cache != nullptr) inputs.cache->check(batch, count);
    const KvCache* const filled =
        inputs.encoder_cache != nullptr && inputs.encoder_cache->length() > 0 ? inputs.encoder_cache : nullptr;
    TORCH_CHECK(filled != nullptr || inputs.encoder_states.defined(),
                "expected input_values, encoder_hidden_states or a filled encoder_cache, got none of them");
    int64_t rows = 0, frames = 0;
    if (filled != nullptr) {
      rows = filled->batch();
      frames = filled->length();
      filled->check(rows, count);
    } else {
      const at::IntArrayRef shape = inputs.encoder_states.sizes();
      TORCH_CHECK(shape.size() == 3 && shape[2] == dim && shape[1] > 0,
                  "encoder_hidden_states must be [batch, frames, ", dim, "], got ", shape);
      rows = shape[0];
      frames = shape[1];
    }
    TORCH_CHECK(rows > 0 && batch % rows == 0, "decoder_input_ids has ", batch, " rows, but there are ", rows,
                " rows of audio");
    TORCH_CHECK(!inputs.encoder_mask.defined() || inputs.encoder_mask.sizes().equals({rows, frames}),
                "encoder_attention_mask must be [", rows, ", ", frames, "] like the frames, got ",
                inputs.encoder_mask.sizes());
    TORCH_CHECK(!inputs.mask.defined() || inputs.mask.sizes().equals({batch, past + time}),
                "decoder_attention_mask must be [", batch, ", ", past + time, "], got ", inputs.mask.sizes());
    const at::IntArrayRef places = inputs.positions.defined() ? inputs.positions.sizes() : at::IntArrayRef{};
    TORCH_CHECK(!inputs.positions.defined() || places.equals({batch, time}) || places.equals({1, time}),
                "decoder_position_ids must be [", batch, ", ", time, "] like the tokens, got ", places);
  }

  ModuleList<MoonshineDecoderLayer>& layers;
  MoonshineNorm& norm;
  const int64_t dim;
  const nn::Rotary& rotary;
};

class MoonshineModel : public Module {
 public:
  MoonshineModel(const ModuleOptions& options, const MoonshineConfig& c, const nn::Rotary& rotary)
      : Module("MoonshineModel", options),
        encoder(*child<MoonshineEncoder>("encoder", c, rotary)),
        decoder(*child<MoonshineDecoder>("decoder", c, rotary)) {}
  MoonshineEncoder& encoder;
  MoonshineDecoder& decoder;
};

class Moonshine : public Module, public generation::Generative, public nn::TiedHead {
 public:
  Moonshine(const ModuleOptions& options, const Config& settings)
      : Module("Moonshine", options),
        config(settings),
        rotary(settings, config.dim / config.heads, settings.integer("max_position_embeddings"), /*partial=*/true),
        model(*child<MoonshineModel>("model", config, rotary)),
        proj_out(config.tied ? nullptr : child<Linear>("proj_out", config.dim, config.vocabulary, false, config.std)) {}

  Names names() const override { return {"proj_out", "model.decoder.embed_tokens"}; }
  const Tensor& tied_weight() const override {
    static const Tensor none;
    return proj_out == nullptr ? model.decoder.embeddings.weight : none;
  }
  int64_t vocabulary_size() const override { return config.vocabulary; }
  std::unique_ptr<generation::CausalStepper> stepper(c10::intrusive_ptr<KvCache> cache) const override;

  Tensor logits(const Tensor& hidden) const {
    const auto own = own_head();
    const Linear* const head = own ? own.get() : proj_out;
    return head != nullptr ? head->forward(hidden)
                           : kernels::linear(hidden, model.decoder.embeddings.weight, std::nullopt);
  }

  // Mean cross-entropy of labels [batch, time] that are not -100.
  Tensor loss(const Tensor& hidden, const Tensor& labels) const {
    const auto own = own_head();
    const Linear* const head = own ? own.get() : proj_out;
    if (head != nullptr && head->altered()) {
      return at::cross_entropy_loss(logits(hidden).flatten(0, 1).to(at::kFloat), labels.flatten());
    }
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("voxtorch::linear_cross_entropy", "")
                               .typed<Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, const Tensor&,
                                             int64_t, double, double, std::string_view, int64_t)>();
    const Tensor& weight = head != nullptr ? head->weight : model.decoder.embeddings.weight;
    return op.call(hidden, weight, std::nullopt, labels, -100, 0, 0, "mean", 0);
  }

  // The decoder's input for labels: each token follows the one before it.
  Tensor shifted(const Tensor& labels) const {
    TORCH_CHECK(labels.dim() == 2 && labels.size(0) > 0 && labels.size(1) > 0 && labels.scalar_type() == at::kLong,
                "labels must be int64 [batch, time], at least one token, got ", labels.scalar_type(), " ",
                labels.sizes());
    const Tensor before = labels.narrow(1, 0, labels.size(1) - 1);
    const Tensor start = at::full({labels.size(0), 1}, config.start, labels.options());
    return at::cat({start, before.masked_fill(before == -100, std::max<int64_t>(config.padding, 0))}, 1);
  }

  const MoonshineConfig config;
  const nn::Rotary rotary;
  MoonshineModel& model;
  Linear* const proj_out;  // null while tied to the embeddings
};

// The keys and values of the audio are computed once. Each row of tokens has a row of them.
class MoonshineStepper : public generation::CachedStepper {
 public:
  MoonshineStepper(const Moonshine& network, c10::intrusive_ptr<KvCache> cache)
      : CachedStepper(network.all_parameters().front().device(), std::move(cache)),
        network_(network),
        heard_(or_new({})) {}

  generation::PromptLogits prefill(const generation::Prompt& prompt) override {
    TORCH_CHECK(!prompt.embeddings.defined(), "Moonshine's decoder reads input_ids, not inputs_embeds");
    if (prompt.encoder_cache) {
      heard_ = prompt.encoder_cache;
      shared_ = true;
    }
    if (prompt.encoder_mask.defined()) heard_mask_ = prompt.encoder_mask.to(device_, at::kBool);
    const Tensor hidden = decode(read(prompt), prompt.encoder_states);
    const int64_t rows = prompt.ids.size(0), group = rows / heard_->batch();
    for (int64_t row = 0; row < rows; ++row) audio_.push_back(row / group);
    if (group > 1) take_audio(audio_);
    return answer(prompt, hidden);
  }

  void reorder(const Tensor& rows) override {
    CachedStepper::reorder(rows);
    const int64_t* const sources = rows.const_data_ptr<int64_t>();
    std::vector<int64_t> places(sources, sources + rows.size(0)), audio;
    for (const int64_t place : places) audio.push_back(audio_[static_cast<size_t>(place)]);
    // Beams of one clip change places all the time, and its keys stay.
    if (audio != audio_) take_audio(places);
    audio_ = std::move(audio);
  }

 private:
  void take_audio(const std::vector<int64_t>& rows) {
    if (shared_) heard_ = heard_->copy();
    shared_ = false;
    const Tensor places = at::tensor(rows, at::kLong);
    heard_->reorder(places);
    if (heard_mask_.defined()) heard_mask_ = heard_mask_.index_select(0, places.to(heard_mask_.device()));
  }

  Tensor hidden_of(const Tokens& tokens) override { return decode(tokens, Tensor()); }
  Tensor logits_of(const Tensor& hidden) const override { return network_.logits(hidden); }

  // Encoder states are needed until heard_ has their keys and values.
  Tensor decode(const Tokens& tokens, const Tensor& encoder_states) {
    MoonshineDecoderInputs inputs{tokens.ids, tokens.mask, tokens.positions, encoder_states, heard_mask_};
    if (tokens.mask.defined() && !inputs.positions.defined()) {
      const int64_t time = tokens.ids.size(1), past = tokens.mask.size(1) - time;
      inputs.positions = (tokens.mask.to(at::kLong).cumsum(1) - 1).clamp_min(0).narrow(1, past, time);
    }
    inputs.cache = cache_.get();
    inputs.encoder_cache = heard_.get();
    return network_.model.decoder.forward(inputs, false, false).last_hidden_state;
  }

  const Moonshine& network_;
  c10::intrusive_ptr<KvCache> heard_;  // of the audio
  bool shared_ = false;                // heard_ is the caller's and does not change
  std::vector<int64_t> audio_;         // the clip of each row
  Tensor heard_mask_;                  // bool, the rows of heard_ by frames; undefined: all frames are valid
};

std::unique_ptr<generation::CausalStepper> Moonshine::stepper(c10::intrusive_ptr<KvCache> cache) const {
  return std::make_unique<MoonshineStepper>(*this, std::move(cache));
}

using ModulePtr = c10::intrusive_ptr<Module>;
using Tensors = std::vector<Tensor>;
using OptionalModule = std::optional<ModulePtr>;
using MaybeTensor = std::optional<Tensor>;

std::tuple<Tensor, Tensor, Tensors, Tensors> moonshine_encode(const ModulePtr& self, const Tensor& samples,
                                                              const MaybeTensor& mask, bool hidden_states,
                                                              bool attentions) {
  MoonshineEncoded result = network<Moonshine>(self, "moonshine_encoder_forward")
                                .model.encoder.forward(samples, mask.value_or(Tensor()), hidden_states, attentions);
  return {result.last_hidden_state, result.mask, std::move(result.hidden_states), std::move(result.attentions)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensors, Tensors, Tensors, Tensors, Tensors> moonshine_forward(
    const ModulePtr& self, const MaybeTensor& samples, const MaybeTensor& mask, const MaybeTensor& ids,
    const MaybeTensor& decoder_mask, const MaybeTensor& positions, const MaybeTensor& encoder_states,
    const MaybeTensor& encoder_mask, const MaybeTensor& labels, const OptionalModule& cache,
    const OptionalModule& encoder_cache, std::optional<int64_t> logits_to_keep, bool hidden_states, bool attentions) {
  const auto& moonshine = network<Moonshine>(self, "moonshine_forward");
  const bool cached = cache.has_value() || encoder_cache.has_value();
  TORCH_CHECK(!cached || !labels, "expected either labels or a cache, because no gradient flows through it, got both");
  TORCH_CHECK(!samples || !encoder_states, "expected either input_values or encoder_hidden_states, got both");
  TORCH_CHECK(ids || labels, "expected decoder_input_ids or labels, got neither");
  TORCH_CHECK(!labels || !ids || labels->sizes().equals(ids->sizes()),
              "labels must be [batch, time] like decoder_input_ids, got ",
              labels ? labels->sizes() : at::IntArrayRef{});
  TORCH_CHECK(!logits_to_keep || *logits_to_keep >= 0, "logits_to_keep must be 0 (all) or above, got ",
              *logits_to_keep);
  const at::AutoGradMode recording(at::GradMode::is_enabled() && !cached);
  const auto cache_of = [](const OptionalModule& module) {
    return module ? &network<KvCache>(*module, "moonshine_forward") : nullptr;
  };
  MoonshineEncoded heard;
  heard.last_hidden_state = encoder_states.value_or(Tensor());
  heard.mask = encoder_mask ? encoder_mask->to(at::kBool) : Tensor();
  if (samples) {
    TORCH_CHECK(!encoder_mask, "expected encoder_attention_mask only with encoder_hidden_states; pass the mask of ",
                "input_values as attention_mask");
    heard = moonshine.model.encoder.forward(*samples, mask.value_or(Tensor()), hidden_states, attentions);
  } else {
    TORCH_CHECK(!mask, "attention_mask: expected input_values with it, got none");
  }
  MoonshineDecoderInputs inputs{ids ? *ids : moonshine.shifted(*labels), decoder_mask.value_or(Tensor()),
                                positions.value_or(Tensor()), heard.last_hidden_state, heard.mask};
  inputs.cache = cache_of(cache);
  inputs.encoder_cache = cache_of(encoder_cache);
  MoonshineDecoded result = moonshine.model.decoder.forward(inputs, hidden_states, attentions);
  const Tensor& hidden = result.last_hidden_state;
  Tensor loss, logits;
  if (labels) loss = moonshine.loss(hidden, *labels);
  if (logits_to_keep || !labels) logits = moonshine.logits(nn::last_states(hidden, logits_to_keep.value_or(0)));
  return {loss,
          logits,
          hidden,
          heard.last_hidden_state,
          std::move(result.hidden_states),
          std::move(result.attentions),
          std::move(result.cross_attentions),
          std::move(heard.hidden_states),
          std::move(heard.attentions)};
}

const RegisteredModule registered_moonshine("moonshine", make_module<Moonshine>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "moonshine_encoder_forward(__torch__.torch.classes.voxtorch.Module self, Tensor input_values, Tensor? "
      "attention_mask=None, *, bool output_hidden_states=False, bool output_attentions=False) -> (Tensor "
      "last_hidden_state, Tensor attention_mask, Tensor[] hidden_states, Tensor[] attentions)",
      moonshine_encode);
  // logits_to_keep: of the last tokens; 0: all; None: all without labels, none with labels. With a cache nothing is
  // recorded for backward.
  m.def(
      "moonshine_forward(__torch__.torch.classes.voxtorch.Module self, Tensor? input_values=None, Tensor? "
      "attention_mask=None, *, Tensor? decoder_input_ids=None, Tensor? decoder_attention_mask=None, Tensor? "
      "decoder_position_ids=None, Tensor? encoder_hidden_states=None, Tensor? encoder_attention_mask=None, Tensor? "
      "labels=None, __torch__.torch.classes.voxtorch.Module? cache=None, __torch__.torch.classes.voxtorch.Module? "
      "encoder_cache=None, int? logits_to_keep=None, bool output_hidden_states=False, bool output_attentions=False) -> "
      "(Tensor loss, Tensor logits, Tensor last_hidden_state, Tensor encoder_last_hidden_state, Tensor[] "
      "decoder_hidden_states, Tensor[] decoder_attentions, Tensor[] cross_attentions, Tensor[] encoder_hidden_states, "
      "Tensor[] encoder_attentions)",
      moonshine_forward);
}

}  // namespace voxtorch::models

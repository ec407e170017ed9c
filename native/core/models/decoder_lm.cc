#include "core/models/decoder_lm.h"

#include <ATen/core/Reduction.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/library.h>

#include "core/kernels/rms_norm_residual/rms_norm_residual.h"
#include "core/nn/checkpoint.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Embedding;
using nn::KvCache;
using nn::Linear;
using nn::Rotation;
using OptionalTensor = std::optional<Tensor>;

DecoderLMConfig::DecoderLMConfig(const Config& config)
    : type(config.text("model_type", "llama")),
      vocabulary(config.integer("vocab_size", 32000)),
      dim(config.integer("hidden_size", 4096)),
      layers(config.integer("num_hidden_layers", 32)),
      heads(config.integer("num_attention_heads", 32)),
      kv_heads(config.integer("num_key_value_heads", heads)),
      head_dim(config.integer("head_dim", heads > 0 ? dim / heads : 0)),
      intermediate(config.integer("intermediate_size", 11008)),
      positions(config.integer("max_position_embeddings", 2048)),
      padding(std::max<int64_t>(config.integer("pad_token_id", -1), -1)),
      window(0),
      first_window_layer(0),
      eps(config.number("rms_norm_eps", 1e-6)),
      std(config.number("initializer_range", 0.02)),
      attention_dropout(config.number("attention_dropout", 0)),
      activation(config.text("hidden_act", "silu")),
      qkv_bias(type == "qwen2" || (type == "llama" && config.boolean("attention_bias", false))),
      output_bias(type == "llama" && qkv_bias),
      mlp_bias(type == "llama" && config.boolean("mlp_bias", false)),
      tied(config.boolean("tie_word_embeddings", false)),
      rope(config) {
  TORCH_CHECK(type == "llama" || type == "mistral" || type == "qwen2",
              "model_type must be llama, mistral or qwen2, got '", type, "'");
  TORCH_CHECK(heads > 0 && (config.has("head_dim") || dim % heads == 0), "hidden_size ", dim,
              " is not divisible by num_attention_heads ", heads);
  TORCH_CHECK(kv_heads > 0 && heads % kv_heads == 0, "num_attention_heads ", heads,
              " is not divisible by num_key_value_heads ", kv_heads);
  TORCH_CHECK(padding < vocabulary, "pad_token_id ", padding, " is not below vocab_size ", vocabulary);
  if (type == "mistral" || (type == "qwen2" && config.boolean("use_sliding_window", false))) {
    window = config.integer("sliding_window", 0);
    TORCH_CHECK(window >= 0, "sliding_window must be above 0, got ", window);
  }
  if (type == "qwen2") first_window_layer = config.integer("max_window_layers", 28);
}

namespace {

// Which keys the queries of a pass see. They are the last `time` of all tokens, the past included.
struct Sight {
  int64_t first_key = 0;  // those before it are seen by none
  Tensor mask;            // bool [batch or 1, 1, time, keys from first_key]; undefined: see `causal`
  bool causal = false;    // without a mask: each query sees the keys up to its own; else all
};

// `real`: bool [batch, total], undefined where all are; window: 0 for none. Every query sees itself, padding too:
// nothing reads what it answers, but it stays finite.
Sight sight_of(int64_t past, int64_t time, int64_t window, const Tensor& real, bool with_mask,
               const at::TensorOptions& on) {
  const int64_t total = past + time;
  Sight sight;
  if (window >= total) window = 0;
  if (window > 0 && !with_mask) sight.first_key = std::max<int64_t>(0, past - window + 1);
  const bool all = time == 1 && (window == 0 || !with_mask);
  if (!with_mask && !real.defined()) {
    if (all) return sight;
    sight.causal = past == 0 && window == 0;
    if (sight.causal) return sight;
  }
  const auto integers = on.dtype(at::kLong);
  const Tensor queries = at::arange(past, total, integers).unsqueeze(1);
  const Tensor keys = at::arange(sight.first_key, total, integers).unsqueeze(0);
  Tensor mask = keys <= queries;
  if (window > 0) mask = mask & (keys > queries - window);
  if (real.defined()) {
    const Tensor known = real.narrow(1, sight.first_key, total - sight.first_key).unsqueeze(1).unsqueeze(1);
    mask = (mask & known) | (keys == queries);
  }
  sight.mask = mask.dim() == 2 ? mask.unsqueeze(0).unsqueeze(0) : mask;
  return sight;
}

// Each group of heads / kv_heads queries shares a key and a value.
nn::Attended attend(const Tensor& q, Tensor k, Tensor v, const Sight& sight, double dropout, bool with_weights) {
  if (sight.first_key > 0) {
    const int64_t seen = k.size(2) - sight.first_key;
    k = k.narrow(2, sight.first_key, seen);
    v = v.narrow(2, sight.first_key, seen);
  }
  const int64_t batch = q.size(0), heads = q.size(1), time = q.size(2), groups = k.size(1), dim = q.size(3);
  if (heads != groups && time == 1) {
    // The queries of a group stand beside each other in time: no key is copied.
    nn::Attended result =
        nn::attend(q.reshape({batch, groups, heads / groups, dim}), k, v, sight.mask, dropout, with_weights);
    result.output = result.output.reshape({batch, heads, 1, dim});
    if (with_weights) result.weights = result.weights.reshape({batch, heads, 1, k.size(2)});
    return result;
  }
  if (heads != groups) {
    const auto for_each_head = [&](const Tensor& shared) {
      return shared.unsqueeze(2).expand({batch, groups, heads / groups, shared.size(2), dim}).flatten(1, 2);
    };
    k = for_each_head(k);
    v = for_each_head(v);
  }
  if (sight.causal) return {at::scaled_dot_product_attention(q, k, v, std::nullopt, dropout, true), Tensor()};
  return nn::attend(q, k, v, sight.mask, dropout, with_weights);
}

class RmsNorm : public Block {
 public:
  RmsNorm(const ModuleOptions& options, int64_t dim, double eps)
      : Block("RmsNorm", options), weight(parameter("weight", {dim}, init::ones())), eps(eps) {}

  // Of input + residual, and that sum. An undefined residual is 0.
  std::pair<Tensor, Tensor> forward(const Tensor& input, const Tensor& residual = {}) const {
    static const auto op =
        c10::Dispatcher::singleton()
            .findSchemaOrThrow("voxtorch::rms_norm_residual", "")
            .typed<kernels::TensorPair(const Tensor&, const OptionalTensor&, const OptionalTensor&, double)>();
    auto [output, sum] =
        op.call(input, residual.defined() ? OptionalTensor(residual) : std::nullopt, OptionalTensor(weight), eps);
    return {watched(sum, std::move(output)), sum};
  }

 private:
  const Tensor weight;
  const double eps;
};

// What all layers of a pass have in common.
struct Pass {
  Rotation rotation;
  Sight full, windowed;
  KvCache* cache = nullptr;
  bool with_weights = false;
};

class DecoderAttention : public Block {
 public:
  DecoderAttention(const ModuleOptions& options, const DecoderLMConfig& c, int64_t index)
      : Block("DecoderAttention", options),
        query(*child<Linear>("q_proj", c.dim, c.heads * c.head_dim, c.qkv_bias, c.std)),
        key(*child<Linear>("k_proj", c.dim, c.kv_heads * c.head_dim, c.qkv_bias, c.std)),
        value(*child<Linear>("v_proj", c.dim, c.kv_heads * c.head_dim, c.qkv_bias, c.std)),
        output(*child<Linear>("o_proj", c.heads * c.head_dim, c.dim, c.output_bias, c.std)),
        heads(c.heads),
        kv_heads(c.kv_heads),
        index(static_cast<size_t>(index)),
        windowed(c.window > 0 && index >= c.first_window_layer),
        dropout(c.attention_dropout) {}

  nn::Attended forward(const Tensor& x, const Pass& pass) const {
    const Tensor q = pass.rotation.apply(nn::split_heads(query.forward(x), heads));  // [batch, heads, time, head_dim]
    Tensor k = pass.rotation.apply(nn::split_heads(key.forward(x), kv_heads));  // [batch, kv_heads, time, head_dim]
    Tensor v = nn::split_heads(value.forward(x), kv_heads);
    if (pass.cache != nullptr) std::tie(k, v) = pass.cache->append(index, k, v);  // [batch, kv_heads, past + time, ...]
    nn::Attended result =
        attend(q, k, v, windowed ? pass.windowed : pass.full, training() ? dropout : 0, pass.with_weights);
    result.output = watched(x, output.forward(nn::join_heads(result.output)));  // [batch, time, dim]
    return result;
  }

 private:
  Linear &query, &key, &value, &output;
  const int64_t heads, kv_heads;
  const size_t index;
  const bool windowed;
  const double dropout;
};

// SwiGLU (Shazeer 2020, https://arxiv.org/abs/2002.05202).
class DecoderMLP : public Block {
 public:
  DecoderMLP(const ModuleOptions& options, const DecoderLMConfig& c)
      : Block("DecoderMLP", options),
        gate(*child<Linear>("gate_proj", c.dim, c.intermediate, c.mlp_bias, c.std)),
        up(*child<Linear>("up_proj", c.dim, c.intermediate, c.mlp_bias, c.std)),
        down(*child<Linear>("down_proj", c.intermediate, c.dim, c.mlp_bias, c.std)),
        activation(nn::activation(c.activation)) {}

  Tensor forward(const Tensor& x, const Tensor& residual) const {
    const Tensor inner = gate.forward(x, activation) * up.forward(x);
    return hooked() ? watched(x, down.forward(inner)) + residual : down.forward_add(inner, residual);
  }

 private:
  Linear &gate, &up, &down;
  const nn::Activation activation;
};

class DecoderLayer : public Block {
 public:
  DecoderLayer(const ModuleOptions& options, const DecoderLMConfig& c, int64_t index)
      : Block("DecoderLayer", options),
        attention(*child<DecoderAttention>("self_attn", c, index)),
        mlp(*child<DecoderMLP>("mlp", c)),
        attention_norm(*child<RmsNorm>("input_layernorm", c.dim, c.eps)),
        mlp_norm(*child<RmsNorm>("post_attention_layernorm", c.dim, c.eps)) {}

  nn::Attended forward(const Tensor& x, const Pass& pass) const {
    nn::Attended result = attention.forward(attention_norm.forward(x).first, pass);
    const auto [normed, stream] = mlp_norm.forward(result.output, x);
    result.output = watched(x, mlp.forward(normed, stream));
    return result;
  }

 private:
  DecoderAttention& attention;
  DecoderMLP& mlp;
  RmsNorm &attention_norm, &mlp_norm;
};

}  // namespace

class DecoderModel : public Block, public nn::Checkpointing {
 public:
  DecoderModel(const ModuleOptions& options, const DecoderLMConfig& c)
      : Block("DecoderModel", options),
        words(*child<Embedding>("embed_tokens", c.vocabulary, c.dim, c.padding, c.std)),
        layers(*child<ModuleList<DecoderLayer>>("layers")),
        norm(*child<RmsNorm>("norm", c.dim, c.eps)),
        rotary(c.rope, c.head_dim, c.positions),
        window(c.window) {
    for (int64_t i = 0; i < c.layers; ++i) layers.add(c, i);
  }

  DecoderOutput forward(const DecoderLMInputs& inputs, bool hidden_states, bool attentions) const {
    const bool embedded = inputs.embeddings.defined();
    Tensor x = embedded ? inputs.embeddings : words.forward(inputs.ids);  // [batch, time, dim]
    const Pass pass = prepare(inputs, x, attentions);
    DecoderOutput result;
    for (DecoderLayer* layer : layers) {
      if (hidden_states) result.hidden_states.push_back(x);
      const bool again = pass.cache == nullptr && nn::should_checkpoint(*this);
      nn::Attended attended = again ? again_later(*layer, x, pass) : layer->forward(x, pass);
      x = std::move(attended.output);
      if (attentions) result.attentions.push_back(std::move(attended.weights));
    }
    result.last_hidden_state = watched(embedded ? inputs.embeddings : inputs.ids, norm.forward(x).first);
    if (hidden_states) result.hidden_states.push_back(result.last_hidden_state);
    if (pass.cache != nullptr) pass.cache->advance(x.size(1));
    return result;
  }

  Embedding& words;

 private:
  Pass prepare(const DecoderLMInputs& inputs, const Tensor& x, bool attentions) const {
    const int64_t past = inputs.cache != nullptr ? inputs.cache->length() : 0, time = x.size(1);
    const at::TensorOptions on = at::TensorOptions().device(x.device());
    Tensor real = inputs.mask.defined() ? inputs.mask.to(on.dtype(at::kBool)) : Tensor();
    Tensor positions = inputs.positions;
    if (!positions.defined() && real.defined()) {
      positions = (real.to(at::kLong).cumsum(1) - 1).clamp_min(0).narrow(1, past, time);
    } else if (!positions.defined()) {
      positions = at::arange(past, past + time, on.dtype(at::kLong)).unsqueeze(0);
    }
    // Kernels are faster without a mask; on other devices the question would wait for them.
    if (real.defined() && real.is_cpu() && real.all().item<bool>()) real = Tensor();
    const auto see = [&](int64_t wide) { return sight_of(past, time, wide, real, attentions, on); };
    return {rotary.at(positions, x.scalar_type()), see(0), window > 0 ? see(window) : Sight(), inputs.cache,
            attentions};
  }

  static nn::Attended again_later(DecoderLayer& layer, const Tensor& x, const Pass& pass) {
    // Nothing but x takes part in the gradient, so the rest may stay with the function.
    std::vector<Tensor> outputs =
        nn::checkpoint(layer, {x}, [&layer, pass](const std::vector<Tensor>& in) -> std::vector<Tensor> {
          nn::Attended attended = layer.forward(in[0], pass);
          if (!pass.with_weights) return {attended.output};
          return {attended.output, attended.weights};
        });
    return {outputs[0], pass.with_weights ? outputs[1] : Tensor()};
  }

  ModuleList<DecoderLayer>& layers;
  RmsNorm& norm;
  const nn::Rotary rotary;
  const int64_t window;
};

DecoderLM::DecoderLM(const ModuleOptions& options, const Config& settings)
    : Module("DecoderLM", options),
      config(settings),
      model(*child<DecoderModel>("model", config)),
      lm_head(config.tied ? nullptr : child<Linear>("lm_head", config.dim, config.vocabulary, false, config.std)) {}

DecoderOutput DecoderLM::forward(const DecoderLMInputs& inputs, bool hidden_states, bool attentions) const {
  TORCH_CHECK(inputs.ids.defined() != inputs.embeddings.defined(), "give either input_ids or inputs_embeds");
  if (inputs.ids.defined()) {
    TORCH_CHECK(inputs.ids.dim() == 2, "input_ids must be [batch, time], got ", inputs.ids.sizes());
  } else {
    TORCH_CHECK(inputs.embeddings.dim() == 3 && inputs.embeddings.size(2) == config.dim,
                "inputs_embeds must be [batch, time, ", config.dim, "], got ", inputs.embeddings.sizes());
  }
  const Tensor& given = inputs.ids.defined() ? inputs.ids : inputs.embeddings;
  const int64_t batch = given.size(0), time = given.size(1);
  const int64_t past = inputs.cache != nullptr ? inputs.cache->length() : 0;
  TORCH_CHECK(batch > 0 && time > 0, "there must be at least one token, got ", given.sizes());
  if (inputs.cache != nullptr) inputs.cache->check(batch, config.layers);
  if (inputs.mask.defined()) {
    TORCH_CHECK(inputs.mask.sizes().equals({batch, past + time}), "attention_mask must be [", batch, ", ", past + time,
                "], a column for each token", past > 0 ? " in the cache and in the input" : "", ", got ",
                inputs.mask.sizes());
  }
  if (inputs.positions.defined()) {
    const at::IntArrayRef shape = inputs.positions.sizes();
    TORCH_CHECK(shape.equals({batch, time}) || shape.equals({1, time}), "position_ids must be [", batch, ", ", time,
                "] like the tokens, got ", shape);
  }
  return model.forward(inputs, hidden_states, attentions);
}

Tensor DecoderLM::embed(const Tensor& ids) const { return model.words.forward(ids); }

const Tensor& DecoderLM::tied_weight() const {
  static const Tensor none;
  return lm_head == nullptr ? model.words.weight : none;
}

Tensor DecoderLM::logits(const Tensor& hidden) const {
  const auto own = own_head();
  const Linear* const head = own ? own.get() : lm_head;
  return head != nullptr ? head->forward(hidden) : kernels::linear(hidden, model.words.weight, std::nullopt);
}

Tensor DecoderLM::loss(const Tensor& hidden, const Tensor& labels, double smoothing) const {
  TORCH_CHECK(smoothing >= 0 && smoothing <= 1, "label_smoothing must be from 0 to 1, got ", smoothing);
  TORCH_CHECK(labels.sizes().equals(hidden.sizes().slice(0, 2)) && labels.scalar_type() == at::kLong,
              "labels must be int64 [", hidden.size(0), ", ", hidden.size(1), "] like the tokens, got ",
              labels.scalar_type(), " ", labels.sizes());
  const Tensor before = hidden.narrow(1, 0, hidden.size(1) - 1), next = labels.narrow(1, 1, labels.size(1) - 1);
  const auto own = own_head();
  const Linear* const head = own ? own.get() : lm_head;
  if (head != nullptr && head->altered()) {
    return at::cross_entropy_loss(logits(before).flatten(0, 1).to(at::kFloat), next.flatten(), std::nullopt,
                                  at::Reduction::Mean, -100, smoothing);
  }
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("voxtorch::linear_cross_entropy", "")
                             .typed<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, const Tensor&, int64_t,
                                           double, double, std::string_view, int64_t)>();
  const Tensor& weight = head != nullptr ? head->weight : model.words.weight;
  return op.call(before, weight, std::nullopt, next, -100, smoothing, 0, "mean", 0);
}

namespace {

using ModulePtr = c10::intrusive_ptr<Module>;
using Tensors = std::vector<Tensor>;

std::tuple<Tensor, Tensor, Tensor, Tensors, Tensors> forward(
    const ModulePtr& self, const OptionalTensor& ids, const OptionalTensor& mask, const OptionalTensor& positions,
    const OptionalTensor& embeddings, const OptionalTensor& labels, const std::optional<ModulePtr>& cache,
    std::optional<int64_t> logits_to_keep, bool hidden_states, bool attentions, double label_smoothing) {
  const auto& network = voxtorch::network<DecoderLM>(self, "decoder_lm_forward");
  DecoderLMInputs inputs{ids.value_or(Tensor()), mask.value_or(Tensor()), positions.value_or(Tensor()),
                         embeddings.value_or(Tensor())};
  if (cache) inputs.cache = &voxtorch::network<KvCache>(*cache, "decoder_lm_forward");
  TORCH_CHECK(!cache || !labels, "give either labels or a cache: no gradient goes through a cache");
  TORCH_CHECK(!logits_to_keep || *logits_to_keep >= 0, "logits_to_keep must be 0 (all) or above, got ",
              *logits_to_keep);
  const at::AutoGradMode recording(at::GradMode::is_enabled() && !cache);
  DecoderOutput result = network.forward(inputs, hidden_states, attentions);
  const Tensor& hidden = result.last_hidden_state;
  Tensor loss, logits;
  if (labels) loss = network.loss(hidden, *labels, label_smoothing);
  if (logits_to_keep || !labels) {
    const int64_t time = hidden.size(1), wanted = logits_to_keep.value_or(0);
    const int64_t kept = wanted == 0 ? time : std::min(wanted, time);
    logits = network.logits(kept == time ? hidden : hidden.narrow(1, time - kept, kept).contiguous());
  }
  return {loss, logits, hidden, std::move(result.hidden_states), std::move(result.attentions)};
}

const RegisteredModule registered("decoder_lm", make_module<DecoderLM>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // logits_to_keep: of the last tokens; 0: all; None: all without labels, none with labels. With a cache nothing is
  // recorded for backward.
  m.def(
      "decoder_lm_forward(__torch__.torch.classes.voxtorch.Module self, Tensor? input_ids=None, Tensor? "
      "attention_mask=None, *, Tensor? position_ids=None, Tensor? inputs_embeds=None, Tensor? labels=None, "
      "__torch__.torch.classes.voxtorch.Module? cache=None, int? logits_to_keep=None, bool output_hidden_states=False, "
      "bool output_attentions=False, float label_smoothing=0.) -> (Tensor loss, Tensor logits, Tensor "
      "last_hidden_state, Tensor[] hidden_states, Tensor[] attentions)",
      forward);
  m.def(
      "decoder_lm_embed(__torch__.torch.classes.voxtorch.Module self, Tensor input_ids) -> Tensor",
      [](const ModulePtr& self, const Tensor& ids) { return network<DecoderLM>(self, "decoder_lm_embed").embed(ids); });
}

}  // namespace voxtorch::models

#include "core/models/roberta.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <cmath>

#include "core/nn/tied_head.h"

namespace voxtorch::models {

using at::Tensor;
using nn::Embedding;
using nn::LayerNorm;
using nn::Linear;
using Segments = std::optional<nn::Segments>;

RobertaConfig::RobertaConfig(const Config& config)
    : vocabulary(config.integer("vocab_size", 50265)),
      dim(config.integer("hidden_size", 768)),
      layers(config.integer("num_hidden_layers", 12)),
      heads(config.integer("num_attention_heads", 12)),
      intermediate(config.integer("intermediate_size", 3072)),
      positions(config.integer("max_position_embeddings", 512)),
      types(config.integer("type_vocab_size", 2)),
      padding(config.integer("pad_token_id", 1)),
      eps(config.number("layer_norm_eps", 1e-12)),
      std(config.number("initializer_range", 0.02)),
      dropout(config.number("hidden_dropout_prob", 0.1)),
      attention_dropout(config.number("attention_probs_dropout_prob", 0.1)),
      activation(config.text("hidden_act", "gelu")),
      pooler(config.boolean("add_pooling_layer", true)) {
  TORCH_CHECK(heads > 0 && dim % heads == 0, "hidden_size ", dim, " is not divisible by num_attention_heads ", heads);
}

class RobertaEmbeddings : public Block {
 public:
  RobertaEmbeddings(const ModuleOptions& options, const RobertaConfig& c)
      : Block("RobertaEmbeddings", options),
        words(*child<Embedding>("word_embeddings", c.vocabulary, c.dim, c.padding, c.std)),
        positions(
            *child<Embedding>("position_embeddings", c.positions, c.dim, c.counts_padding ? -1 : c.padding, c.std)),
        types(*child<Embedding>("token_type_embeddings", c.types, c.dim, -1, c.std)),
        norm(*child<LayerNorm>("LayerNorm", c.dim, c.eps)),
        dropout(c.dropout),
        first_position(c.counts_padding ? 0 : c.padding + 1) {}

  Tensor forward(const RobertaInputs& inputs, const Segments& segments) const {
    const Tensor& given = inputs.ids.defined() ? inputs.ids : inputs.embeddings;
    const int64_t batch = given.size(0), time = given.size(1);
    const auto integers = at::TensorOptions().dtype(at::kLong).device(given.device());
    const Tensor type_ids = inputs.types.defined() ? inputs.types : at::zeros({1, 1}, integers);
    const Tensor position_ids = inputs.positions.defined() ? inputs.positions : count_positions(inputs, time, integers);
    const auto real = [&](const Tensor& tensor) { return segments ? segments->pack(tensor) : tensor; };
    const auto real_ids = [&](const Tensor& ids) { return segments ? real(ids.expand({batch, time})) : ids; };
    const Tensor embedded = inputs.ids.defined() ? words.forward(real(given)) : real(given);
    Tensor x = embedded + types.forward(real_ids(type_ids)) + positions.forward(real_ids(position_ids));
    return watched(given, nn::drop(norm.forward(x), dropout, training()));  // [batch, time, dim]
  }

  const Tensor& word_weight() const { return words.weight; }
  Tensor embed_types(const Tensor& ids) const { return types.forward(ids); }

 private:
  // Real tokens count from padding + 1; padding stays at `padding`. BERT counts all from 0.
  Tensor count_positions(const RobertaInputs& inputs, int64_t time, const at::TensorOptions& integers) const {
    const int64_t longest = positions.weight.size(0) - first_position;
    TORCH_CHECK(time <= longest, "the text has ", time, " tokens, but this network's positions end at ", longest);
    if (!inputs.ids.defined() || first_position == 0) {
      return at::arange(first_position, first_position + time, integers).unsqueeze(0);
    }
    const Tensor real = inputs.ids.ne(words.padding).to(at::kLong);
    return real.cumsum(1) * real + words.padding;
  }

  Embedding &words, &positions, &types;
  LayerNorm& norm;
  const double dropout;
  const int64_t first_position;
};

namespace {

Init of_linear(int64_t in) { return init::uniform(1 / std::sqrt(static_cast<double>(in))); }
Init weight_init(const RobertaConfig& c, int64_t in) { return c.as_torch ? of_linear(in) : init::normal(c.std); }
Init bias_init(const RobertaConfig& c, int64_t in) { return c.as_torch ? of_linear(in) : init::zeros(); }

class RobertaSelfAttention : public Block {
 public:
  RobertaSelfAttention(const ModuleOptions& options, const RobertaConfig& c)
      : Block("RobertaSelfAttention", options),
        query(*child<Linear>("query", c.dim, c.dim, weight_init(c, c.dim), bias_init(c, c.dim))),
        key(*child<Linear>("key", c.dim, c.dim, weight_init(c, c.dim), bias_init(c, c.dim))),
        value(*child<Linear>("value", c.dim, c.dim, weight_init(c, c.dim), bias_init(c, c.dim))),
        heads(c.heads),
        dropout(c.attention_dropout) {}

  nn::Attended forward(const Tensor& x, const Tensor& mask, const Segments& segments, bool with_weights) const {
    const auto project = [&](const Linear& layer) { return nn::split_heads(layer.forward(x), heads); };
    const double dropped = training() ? dropout : 0;
    if (segments) {
      return {watched(x, nn::attend_each(*segments, project(query), project(key), project(value), dropped)), Tensor()};
    }
    nn::Attended result = nn::attend(project(query), project(key), project(value), mask, dropped, with_weights);
    result.output = watched(x, nn::join_heads(result.output));  // [batch, time, dim]
    return result;
  }

 private:
  Linear &query, &key, &value;
  const int64_t heads;
  const double dropout;
};

// dense, dropout, residual, norm: what follows the attention and the feed-forward.
class RobertaSublayerOutput : public Block {
 public:
  RobertaSublayerOutput(const ModuleOptions& options, const RobertaConfig& c, int64_t in)
      : Block("RobertaOutput", options),
        dense(*child<Linear>("dense", in, c.dim, weight_init(c, in), bias_init(c, in))),
        norm(*child<LayerNorm>("LayerNorm", c.dim, c.eps)),
        dropout(c.dropout) {}

  Tensor forward(const Tensor& x, const Tensor& residual) const {
    if (!training() || dropout == 0) return watched(x, norm.forward(dense.forward_add(x, residual)));
    return watched(x, norm.forward(nn::drop(dense.forward(x), dropout, training()) + residual));
  }

 private:
  Linear& dense;
  LayerNorm& norm;
  const double dropout;
};

class RobertaAttention : public Block {
 public:
  RobertaAttention(const ModuleOptions& options, const RobertaConfig& c)
      : Block("RobertaAttention", options),
        self(*child<RobertaSelfAttention>("self", c)),
        output(*child<RobertaSublayerOutput>("output", c, c.dim)) {}

  nn::Attended forward(const Tensor& x, const Tensor& mask, const Segments& segments, bool with_weights) const {
    nn::Attended result = self.forward(x, mask, segments, with_weights);
    result.output = watched(x, output.forward(result.output, x));
    return result;
  }

 private:
  RobertaSelfAttention& self;
  RobertaSublayerOutput& output;
};

class RobertaIntermediate : public Block {
 public:
  RobertaIntermediate(const ModuleOptions& options, const RobertaConfig& c)
      : Block("RobertaIntermediate", options),
        dense(*child<Linear>("dense", c.dim, c.intermediate, weight_init(c, c.dim), bias_init(c, c.dim))),
        activation(nn::activation(c.activation)) {}

  Tensor forward(const Tensor& x) const { return watched(x, dense.forward(x, activation)); }

 private:
  Linear& dense;
  const nn::Activation activation;
};

}  // namespace

class RobertaLayer : public Block {
 public:
  RobertaLayer(const ModuleOptions& options, const RobertaConfig& c)
      : Block("RobertaLayer", options),
        attention(*child<RobertaAttention>("attention", c)),
        intermediate(*child<RobertaIntermediate>("intermediate", c)),
        output(*child<RobertaSublayerOutput>("output", c, c.intermediate)) {}

  nn::Attended forward(const Tensor& x, const Tensor& mask, const Segments& segments, bool with_weights) const {
    nn::Attended result = attention.forward(x, mask, segments, with_weights);
    result.output = watched(x, output.forward(intermediate.forward(result.output), result.output));
    return result;
  }

 private:
  RobertaAttention& attention;
  RobertaIntermediate& intermediate;
  RobertaSublayerOutput& output;
};

namespace {

nn::Attended again_later(RobertaLayer& layer, const Tensor& x, const Tensor& mask, const Segments& segments,
                         bool attentions) {
  std::vector<Tensor> outputs = nn::checkpoint(
      layer, {x, mask}, [&layer, segments, attentions](const std::vector<Tensor>& in) -> std::vector<Tensor> {
        nn::Attended attended = layer.forward(in[0], in[1], segments, attentions);
        if (!attentions) return {attended.output};
        return {attended.output, attended.weights};
      });
  return {outputs[0], attentions ? outputs[1] : Tensor()};
}

}  // namespace

RobertaLayers::RobertaLayers(const ModuleOptions& options, const RobertaConfig& c) : Module("ModuleList", options) {
  for (int64_t i = 0; i < c.layers; ++i) layers.push_back(child<RobertaLayer>(std::to_string(i), c));
}

RobertaOutput RobertaLayers::forward(Tensor x, const Tensor& mask, bool hidden_states, bool attentions,
                                     const Segments& segments) const {
  RobertaOutput result;
  for (RobertaLayer* layer : layers) {
    if (hidden_states) result.hidden_states.push_back(x);
    nn::Attended attended = nn::should_checkpoint(*this) ? again_later(*layer, x, mask, segments, attentions)
                                                         : layer->forward(x, mask, segments, attentions);
    x = std::move(attended.output);
    if (attentions) result.attentions.push_back(std::move(attended.weights));
  }
  if (hidden_states) result.hidden_states.push_back(x);
  result.last_hidden_state = std::move(x);
  return result;
}

class RobertaEncoder : public Block {
 public:
  RobertaEncoder(const ModuleOptions& options, const RobertaConfig& c)
      : Block("RobertaEncoder", options), layers(*child<RobertaLayers>("layer", c)) {}

  RobertaOutput forward(const Tensor& x, const Tensor& mask, bool hidden_states, bool attentions,
                        const Segments& segments) const {
    RobertaOutput result = layers.forward(x, mask, hidden_states, attentions, segments);
    result.last_hidden_state = watched(x, std::move(result.last_hidden_state));
    return result;
  }

 private:
  RobertaLayers& layers;
};

class RobertaPooler : public Block {
 public:
  RobertaPooler(const ModuleOptions& options, const RobertaConfig& c)
      : Block("RobertaPooler", options), dense(*child<Linear>("dense", c.dim, c.dim, true, c.std)) {}

  Tensor forward(const Tensor& x) const { return watched(x, at::tanh(dense.forward(x.select(1, 0)))); }

 private:
  Linear& dense;
};

Roberta::Roberta(const ModuleOptions& options, const Config& config) : Roberta(options, RobertaConfig(config)) {}

Roberta::Roberta(const ModuleOptions& options, const RobertaConfig& c)
    : Block("Roberta", options),
      config(c),
      embeddings(*child<RobertaEmbeddings>("embeddings", c)),
      encoder(*child<RobertaEncoder>("encoder", c)),
      pooler(c.pooler ? child<RobertaPooler>("pooler", c) : nullptr) {}

Tensor Roberta::embed_types(const Tensor& ids) const { return embeddings.embed_types(ids); }

RobertaOutput Roberta::forward(const RobertaInputs& inputs, bool hidden_states, bool attentions) const {
  RobertaOutput result = encode(inputs, hidden_states, attentions);
  if (pooler != nullptr) result.pooler_output = pooler->forward(result.last_hidden_state);
  return result;
}

RobertaOutput Roberta::encode(const RobertaInputs& inputs, bool hidden_states, bool attentions) const {
  TORCH_CHECK(inputs.ids.defined() != inputs.embeddings.defined(), "give either input_ids or inputs_embeds");
  if (inputs.ids.defined()) {
    TORCH_CHECK(inputs.ids.dim() == 2, "input_ids must be [batch, time], got ", inputs.ids.sizes());
  } else {
    TORCH_CHECK(inputs.embeddings.dim() == 3 && inputs.embeddings.size(2) == config.dim,
                "inputs_embeds must be [batch, time, ", config.dim, "], got ", inputs.embeddings.sizes());
  }
  const Tensor& given = inputs.ids.defined() ? inputs.ids : inputs.embeddings;
  const auto check = [&](const Tensor& tensor, const char* name) {
    TORCH_CHECK(!tensor.defined() || tensor.sizes().equals(given.sizes().slice(0, 2)), name, " must be [",
                given.size(0), ", ", given.size(1), "] like the tokens, got ", tensor.sizes());
  };
  const bool of_pairs = inputs.mask.defined() && inputs.mask.dim() == 4;
  if (of_pairs) {
    check_pairs(inputs.mask, given.size(0), given.size(1));
  } else {
    check(inputs.mask, "attention_mask");
  }
  check(inputs.types, "token_type_ids");
  TORCH_CHECK(
      !inputs.positions.defined() || (inputs.positions.dim() == 2 && inputs.positions.size(1) == given.size(1) &&
                                      (inputs.positions.size(0) == given.size(0) || inputs.positions.size(0) == 1)),
      "position_ids must be [", given.size(0), " or 1, ", given.size(1), "] like the tokens, got ",
      inputs.positions.defined() ? inputs.positions.sizes() : at::IntArrayRef());
  Segments segments;
  if (of_pairs && !attentions) segments = nn::Segments::of_blocks(inputs.mask, given.device());
  if (inputs.skips_padding && !of_pairs && !attentions) segments = nn::Segments::of(inputs.mask, given.device());
  const Tensor x = embeddings.forward(inputs, segments);
  const Tensor mask = segments ? Tensor() : nn::attention_mask(nn::mask_for(inputs.mask, given.device()));
  RobertaOutput output = encoder.forward(x, mask, hidden_states, attentions, segments);
  if (segments) {
    output.last_hidden_state = segments->pad(output.last_hidden_state);
    for (Tensor& states : output.hidden_states) states = segments->pad(states);
  }
  output.last_hidden_state = watched(given, std::move(output.last_hidden_state));
  return output;
}

void Roberta::check_pairs(const Tensor& mask, int64_t batch, int64_t time) const {
  TORCH_CHECK(mask.scalar_type() == at::kBool, "an attention_mask for pairs of tokens must have the dtype bool, got ",
              mask.scalar_type());
  TORCH_CHECK(mask.size(0) == batch && (mask.size(1) == 1 || mask.size(1) == config.heads) && mask.size(2) == time &&
                  mask.size(3) == time,
              "an attention_mask for pairs of tokens must be [", batch, ", 1 or ", config.heads, ", ", time, ", ", time,
              "], got ", mask.sizes());
}

namespace {

class RobertaLMHead : public Block {
 public:
  RobertaLMHead(const ModuleOptions& options, const RobertaConfig& c)
      : Block("RobertaLMHead", options),
        bias(parameter("bias", {c.vocabulary}, init::zeros())),
        dense(*child<Linear>("dense", c.dim, c.dim, true, c.std)),
        norm(*child<LayerNorm>("layer_norm", c.dim, c.eps)) {}

  // The decoder's weight is that of the word embeddings, but for a decoder of its own.
  Tensor forward(const Tensor& x, const Tensor& words, const Linear* decoder) const {
    const Tensor inner = norm.forward(dense.forward(x, gelu));
    return watched(x, decoder != nullptr ? decoder->forward(inner) + bias
                                         : kernels::linear(inner, words, bias));  // [batch, time, vocabulary]
  }

 private:
  const Tensor bias;
  const nn::Activation gelu = nn::activation("gelu");
  Linear& dense;
  LayerNorm& norm;
};

class RobertaForMaskedLM : public Module, public nn::TiedHead {
 public:
  RobertaForMaskedLM(const ModuleOptions& options, const Config& config)
      : Module("RobertaForMaskedLM", options),
        roberta(*child<Roberta>("roberta", without_pooler(config))),
        head(*child<RobertaLMHead>("lm_head", roberta.config)) {}

  Names names() const override { return {"lm_head.decoder", "roberta.embeddings.word_embeddings"}; }
  const Tensor& tied_weight() const override { return roberta.embeddings.word_weight(); }
  Tensor logits(const Tensor& hidden) const { return head.forward(hidden, tied_weight(), own_head().get()); }

  Roberta& roberta;
  RobertaLMHead& head;

 private:
  static RobertaConfig without_pooler(const Config& config) {
    TORCH_CHECK(config.boolean("tie_word_embeddings", true),
                "RobertaForMaskedLM ties its decoder to the word embeddings; tie_word_embeddings must be true");
    RobertaConfig c(config);
    c.pooler = false;
    return c;
  }
};

class Bert : public Roberta {
 public:
  Bert(const ModuleOptions& options, const Config& config) : Roberta(options, of_bert(config)) {}

 private:
  static RobertaConfig of_bert(const Config& config) {
    RobertaConfig c(config);
    c.vocabulary = config.integer("vocab_size", 30522);
    c.padding = config.integer("pad_token_id", 0);
    c.counts_padding = true;
    return c;
  }
};

using OptionalTensor = std::optional<Tensor>;
using ModulePtr = c10::intrusive_ptr<Module>;
using Tensors = std::vector<Tensor>;

RobertaInputs inputs_of(const OptionalTensor& ids, const OptionalTensor& mask, const OptionalTensor& types,
                        const OptionalTensor& positions, const OptionalTensor& embeddings) {
  return {ids.value_or(Tensor()), mask.value_or(Tensor()), types.value_or(Tensor()), positions.value_or(Tensor()),
          embeddings.value_or(Tensor())};
}

std::tuple<Tensor, Tensor, Tensors, Tensors> forward_roberta(const ModulePtr& self, const OptionalTensor& ids,
                                                             const OptionalTensor& mask, const OptionalTensor& types,
                                                             const OptionalTensor& positions,
                                                             const OptionalTensor& embeddings, bool hidden_states,
                                                             bool attentions) {
  RobertaOutput result = network<Roberta>(self, "roberta_forward")
                             .forward(inputs_of(ids, mask, types, positions, embeddings), hidden_states, attentions);
  return {result.last_hidden_state, result.pooler_output, std::move(result.hidden_states),
          std::move(result.attentions)};
}

std::tuple<Tensor, Tensors, Tensors> masked_lm_forward(const ModulePtr& self, const OptionalTensor& ids,
                                                       const OptionalTensor& mask, const OptionalTensor& types,
                                                       const OptionalTensor& positions,
                                                       const OptionalTensor& embeddings, bool hidden_states,
                                                       bool attentions) {
  const auto& model = network<RobertaForMaskedLM>(self, "roberta_masked_lm_forward");
  RobertaOutput result =
      model.roberta.forward(inputs_of(ids, mask, types, positions, embeddings), hidden_states, attentions);
  return {model.logits(result.last_hidden_state), std::move(result.hidden_states), std::move(result.attentions)};
}

const RegisteredModule registered_roberta("roberta", make_module<Roberta>);
const RegisteredModule registered_bert("bert", make_module<Bert>);
const RegisteredModule registered_masked_lm("roberta_masked_lm", make_module<RobertaForMaskedLM>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "roberta_forward(__torch__.torch.classes.voxtorch.Module self, Tensor? input_ids=None, Tensor? "
      "attention_mask=None, *, Tensor? token_type_ids=None, Tensor? position_ids=None, Tensor? inputs_embeds=None, "
      "bool output_hidden_states=False, bool output_attentions=False) -> (Tensor last_hidden_state, Tensor "
      "pooler_output, Tensor[] hidden_states, Tensor[] attentions)",
      forward_roberta);
  m.def(
      "roberta_masked_lm_forward(__torch__.torch.classes.voxtorch.Module self, Tensor? input_ids=None, Tensor? "
      "attention_mask=None, *, Tensor? token_type_ids=None, Tensor? position_ids=None, Tensor? inputs_embeds=None, "
      "bool output_hidden_states=False, bool output_attentions=False) -> (Tensor logits, Tensor[] hidden_states, "
      "Tensor[] attentions)",
      masked_lm_forward);
}

}  // namespace voxtorch::models

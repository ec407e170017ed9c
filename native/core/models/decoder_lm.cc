#include "core/models/decoder_lm.h"

#include <ATen/OpMathType.h>
#include <ATen/core/Reduction.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "core/models/decoder_layers.h"

namespace voxtorch::models {

using at::Tensor;
using nn::KvCache;
using nn::Linear;
using OptionalTensor = std::optional<Tensor>;

DecoderLM::DecoderLM(const ModuleOptions& options, const Config& settings)
    : Module("DecoderLM", options),
      config(settings),
      model(*child<DecoderModel>("model", config)),
      lm_head(config.tied ? nullptr
                          : child<Linear>(config.names.head, config.dim, config.vocabulary, false, config.std)) {}

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
  if (inputs.cache != nullptr) inputs.cache->check(batch, cache_layers());
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
  if (inputs.lengths) {
    TORCH_CHECK(!inputs.mask.defined() && inputs.cache == nullptr,
                "sequence_lengths say what a token sees: give no attention_mask and no cache with them");
    TORCH_CHECK(batch == 1 || !attentions, "output_attentions with sequence_lengths is for one row, got ", batch);
  }
  if (past > 0 && model.rotary.depends_on_length()) {
    refresh(*inputs.cache, inputs.mask, *model.places(inputs).length, inputs.is_prompt);
  }
  return model.forward(inputs, hidden_states, attentions);
}

int64_t DecoderLM::cache_layers() const { return config.layers + (model.rotary.depends_on_length() ? 1 : 0); }

bool DecoderLM::begins_with(const KvCache& cache, int64_t length) const {
  return !model.rotary.depends_on_length() || cache.angles() == model.rotary.angles(length);
}

void DecoderLM::refresh(KvCache& cache, const Tensor& mask, int64_t length, bool is_prompt) const {
  const int64_t past = cache.length();
  if (past == 0 || !(is_prompt || model.rotary.has_two_sets()) || begins_with(cache, length)) return;
  const auto [embeddings, positions] = cache.get(static_cast<size_t>(config.layers));
  const auto fresh = cache.empty_like();
  DecoderLMInputs all;
  all.embeddings = embeddings.squeeze(1);
  all.positions = positions.squeeze(3).squeeze(1);
  if (mask.defined()) all.mask = mask.narrow(1, 0, past);
  all.cache = fresh.get();
  all.text_length = length;
  all.wanted = 1;
  model.forward(all, false, false);
  cache.become(*fresh);
}

int64_t DecoderLM::vocabulary_size() const { return model.words.weight.size(0); }

Tensor DecoderLM::embed(const Tensor& ids) const { return model.embed(ids); }

const Tensor& DecoderLM::tied_weight() const {
  static const Tensor none;
  return lm_head == nullptr ? model.words.weight : none;
}

Tensor DecoderLM::scaled(const Tensor& hidden) const {
  return config.logit_scale == 1 ? hidden : hidden * config.logit_scale;
}

Tensor DecoderLM::capped(const Tensor& logits) const {
  return config.logit_cap > 0 ? at::tanh(logits / config.logit_cap) * config.logit_cap : logits;
}

Tensor DecoderLM::logits(const Tensor& hidden) const {
  const Tensor states = scaled(hidden);
  const auto own = own_head();
  const Linear* const head = own ? own.get() : lm_head;
  if (head != nullptr) return capped(head->forward(states));
  const auto& packed = model.words.quantized();
  return capped(packed ? nn::quantized_linear(states, *packed, std::nullopt)
                       : kernels::linear(states, model.words.weight, std::nullopt));
}

Tensor DecoderLM::loss(const Tensor& hidden, const Tensor& labels, double smoothing, std::string_view reduction,
                       double temperature) const {
  const bool none = reduction == "none";
  TORCH_CHECK(none || reduction == "mean" || reduction == "sum", "reduction must be 'mean', 'sum' or 'none', got '",
              reduction, "'");
  TORCH_CHECK(smoothing >= 0 && smoothing <= 1, "label_smoothing must be from 0 to 1, got ", smoothing);
  TORCH_CHECK(temperature > 0, "loss_temperature must be above 0, got ", temperature);
  TORCH_CHECK(labels.sizes().equals(hidden.sizes().slice(0, 2)) && labels.scalar_type() == at::kLong,
              "labels must be int64 [", hidden.size(0), ", ", hidden.size(1), "] like the tokens, got ",
              labels.scalar_type(), " ", labels.sizes());
  const Tensor before = hidden.narrow(1, 0, hidden.size(1) - 1), next = labels.narrow(1, 1, labels.size(1) - 1);
  const auto own = own_head();
  const Linear* const head = own ? own.get() : lm_head;
  if (config.logit_cap > 0 || (head != nullptr ? head->altered() : model.words.quantized().has_value())) {
    Tensor all = logits(before).flatten(0, 1);
    if (temperature != 1) all = all / temperature;
    const auto reduced = none ? at::Reduction::None : reduction == "sum" ? at::Reduction::Sum : at::Reduction::Mean;
    const Tensor loss = at::cross_entropy_loss(all.to(at::toOpMathType(all.scalar_type())), next.flatten(),
                                               std::nullopt, reduced, -100, smoothing);
    return none ? loss.view(next.sizes()) : loss;
  }
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("voxtorch::linear_cross_entropy", "")
                             .typed<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, const Tensor&, int64_t,
                                           double, double, std::string_view, int64_t)>();
  const Tensor& weight = head != nullptr ? head->weight : model.words.weight;
  const Tensor states = temperature == 1 ? scaled(before) : scaled(before) / temperature;
  return op.call(states, weight, std::nullopt, next, -100, smoothing, 0, reduction, 0);
}

Tensor DecoderLM::router_loss(const std::vector<Tensor>& router_logits, const Tensor& mask) const {
  if (router_logits.empty()) return {};
  const at::ScalarType type = at::toOpMathType(router_logits[0].scalar_type());
  const at::TensorOptions on = router_logits[0].options().dtype(type);
  // [batch * time, 1]
  const Tensor counts = mask.defined() ? mask.to(on).reshape({-1, 1}) : at::ones({router_logits[0].size(0), 1}, on);
  Tensor chosen = at::zeros({config.experts}, on), probabilities = at::zeros({config.experts}, on);
  for (const Tensor& logits : router_logits) {
    const Tensor each = at::softmax(logits, -1, type);
    const Tensor indices = std::get<1>(at::topk(each.detach(), config.experts_per_token, -1));
    chosen.scatter_add_(0, indices.flatten(), counts.expand_as(indices).flatten());
    probabilities = probabilities + (each * counts).sum(0);
  }
  const Tensor total = counts.sum() * static_cast<double>(router_logits.size());
  return (chosen / total * (probabilities / total)).sum() * static_cast<double>(config.experts);
}

namespace {

using ModulePtr = c10::intrusive_ptr<Module>;
using Tensors = std::vector<Tensor>;

std::tuple<Tensor, Tensor, Tensor, Tensors, Tensors, Tensor, Tensors> forward_decoder_lm(
    const ModulePtr& self, const OptionalTensor& ids, const OptionalTensor& mask, const OptionalTensor& positions,
    const OptionalTensor& embeddings, const OptionalTensor& labels, const std::optional<ModulePtr>& cache,
    std::optional<int64_t> logits_to_keep, bool hidden_states, bool attentions, double label_smoothing,
    at::OptionalIntArrayRef sequence_lengths, std::optional<bool> router_logits, std::string_view reduction,
    double loss_temperature) {
  const auto& network = voxtorch::network<DecoderLM>(self, "decoder_lm_forward");
  DecoderLMInputs inputs{ids.value_or(Tensor()), mask.value_or(Tensor()), positions.value_or(Tensor()),
                         embeddings.value_or(Tensor())};
  if (sequence_lengths) inputs.lengths = *sequence_lengths;
  if (cache) inputs.cache = &voxtorch::network<KvCache>(*cache, "decoder_lm_forward");
  TORCH_CHECK(!cache || !labels, "give either labels or a cache: no gradient goes through a cache");
  TORCH_CHECK(!logits_to_keep || *logits_to_keep >= 0, "logits_to_keep must be 0 (all) or above, got ",
              *logits_to_keep);
  inputs.router_logits = router_logits.value_or(network.config.output_router_logits);
  const at::AutoGradMode recording(at::GradMode::is_enabled() && !cache);
  DecoderOutput result = network.forward(inputs, hidden_states, attentions);
  const Tensor& hidden = result.last_hidden_state;
  Tensor loss, logits;
  if (labels) loss = network.loss(hidden, *labels, label_smoothing, reduction, loss_temperature);
  const Tensor router_loss = network.router_loss(
      result.router_logits,
      inputs.mask.defined() ? inputs.mask.narrow(1, inputs.mask.size(1) - hidden.size(1), hidden.size(1)) : Tensor());
  if (loss.defined() && router_loss.defined() && reduction == "mean")
    loss = loss + router_loss * network.config.router_loss_scale;
  if (logits_to_keep || !labels) logits = network.logits(nn::last_states(hidden, logits_to_keep.value_or(0)));
  return {loss,
          logits,
          hidden,
          std::move(result.hidden_states),
          std::move(result.attentions),
          router_loss,
          std::move(result.router_logits)};
}

const RegisteredModule registered_decoder_lm("decoder_lm", make_module<DecoderLM>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // logits_to_keep: of the last tokens; 0: all; None: all without labels, none with labels. With a cache nothing is
  // recorded for backward. aux_loss: of the routers, a part of the loss; undefined without router_logits.
  m.def(
      "decoder_lm_forward(__torch__.torch.classes.voxtorch.Module self, Tensor? input_ids=None, Tensor? "
      "attention_mask=None, *, Tensor? position_ids=None, Tensor? inputs_embeds=None, Tensor? labels=None, "
      "__torch__.torch.classes.voxtorch.Module? cache=None, int? logits_to_keep=None, bool output_hidden_states=False, "
      "bool output_attentions=False, float label_smoothing=0., int[]? sequence_lengths=None, bool? "
      "output_router_logits=None, str reduction='mean', float loss_temperature=1.) -> (Tensor loss, Tensor logits, "
      "Tensor last_hidden_state, "
      "Tensor[] hidden_states, "
      "Tensor[] attentions, Tensor aux_loss, Tensor[] router_logits)",
      forward_decoder_lm);
  m.def(
      "decoder_lm_embed(__torch__.torch.classes.voxtorch.Module self, Tensor input_ids) -> Tensor",
      [](const ModulePtr& self, const Tensor& ids) { return network<DecoderLM>(self, "decoder_lm_embed").embed(ids); });
}

}  // namespace voxtorch::models

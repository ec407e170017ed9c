#include "core/models/whisper.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/full.h>
#include <torch/library.h>

#include "core/kernels/linear.h"

namespace voxtorch::models {

using at::Tensor;
using nn::KvCache;
using nn::Linear;
using OptionalTensor = std::optional<Tensor>;

namespace {

nn::SpanMasking span_masking(const Config& config, const std::string& axis, double share, int64_t min_spans) {
  const nn::SpanMasking masking{config.probability("mask_" + axis + "_prob", share),
                                config.integer("mask_" + axis + "_length", 10),
                                config.integer("mask_" + axis + "_min_masks", min_spans)};
  TORCH_CHECK(masking.length > 0, "mask_", axis, "_length must be positive, got ", masking.length);
  return masking;
}

}  // namespace

WhisperConfig::WhisperConfig(const Config& config)
    : vocabulary(config.integer("vocab_size", 51865)),
      mels(config.integer("num_mel_bins", 80)),
      dim(config.integer("d_model", 384)),
      encoder_layers(config.integer("encoder_layers", 4)),
      encoder_heads(config.integer("encoder_attention_heads", 6)),
      encoder_intermediate(config.integer("encoder_ffn_dim", 1536)),
      source_positions(config.integer("max_source_positions", 1500)),
      decoder_layers(config.integer("decoder_layers", 4)),
      decoder_heads(config.integer("decoder_attention_heads", 6)),
      decoder_intermediate(config.integer("decoder_ffn_dim", 1536)),
      target_positions(config.integer("max_target_positions", 448)),
      median_filter_width(config.integer("median_filter_width", 7)),
      padding(std::max<int64_t>(config.integer("pad_token_id", 50256), -1)),
      start(config.integer("decoder_start_token_id", 50257)),
      encoder_pooling(config.integer("encoder_pooling", 1)),
      silences_padding(config.boolean("silences_padding", true)),
      std(config.number("init_std", 0.02)),
      dropout(config.probability("dropout", 0)),
      attention_dropout(config.probability("attention_dropout", 0)),
      activation_dropout(config.probability("activation_dropout", 0)),
      encoder_layer_drop(config.probability("encoder_layerdrop", 0)),
      decoder_layer_drop(config.probability("decoder_layerdrop", 0)),
      activation(config.text("activation_function", "gelu")),
      tied(config.boolean("tie_word_embeddings", true)),
      spec_augment(config.boolean("apply_spec_augment", false)),
      time_masking(span_masking(config, "time", 0.05, 2)),
      mel_masking(span_masking(config, "feature", 0, 0)) {
  TORCH_CHECK(dim > 0 && dim % 2 == 0, "d_model must be even, for its sines and cosines, got ", dim);
  TORCH_CHECK(encoder_heads > 0 && dim % encoder_heads == 0, "d_model ", dim,
              " is not divisible by encoder_attention_heads ", encoder_heads);
  TORCH_CHECK(mels > 0 && source_positions > 0, "num_mel_bins and max_source_positions must be positive, got ", mels,
              " and ", source_positions);
  TORCH_CHECK(encoder_pooling > 0, "encoder_pooling must be positive, got ", encoder_pooling);
  TORCH_CHECK(encoder_layers >= 0, "encoder_layers must not be negative, got ", encoder_layers);
}

void WhisperConfig::check_decoder() const {
  TORCH_CHECK(decoder_heads > 0 && dim % decoder_heads == 0, "d_model ", dim,
              " is not divisible by decoder_attention_heads ", decoder_heads);
  TORCH_CHECK(target_positions > 0, "max_target_positions must be positive, got ", target_positions);
  TORCH_CHECK(decoder_layers >= 0, "decoder_layers must not be negative, got ", decoder_layers);
  TORCH_CHECK(median_filter_width > 0 && median_filter_width % 2 == 1, "median_filter_width must be odd, got ",
              median_filter_width);
  TORCH_CHECK(padding < vocabulary, "pad_token_id ", padding, " is not below vocab_size ", vocabulary);
  TORCH_CHECK(start >= 0 && start < vocabulary, "decoder_start_token_id ", start, " is not below vocab_size ",
              vocabulary);
}

namespace {

WhisperConfig with_decoder(const Config& settings) {
  WhisperConfig config(settings);
  config.check_decoder();
  return config;
}

}  // namespace

WhisperModel::WhisperModel(const ModuleOptions& options, const WhisperConfig& c)
    : Module("WhisperModel", options),
      encoder(*child<WhisperEncoder>("encoder", c)),
      decoder(*child<WhisperDecoder>("decoder", c)) {}

Whisper::Whisper(const ModuleOptions& options, const Config& settings)
    : Module("Whisper", options),
      config(with_decoder(settings)),
      model(*child<WhisperModel>("model", config)),
      proj_out(config.tied ? nullptr : child<Linear>("proj_out", config.dim, config.vocabulary, false, config.std)) {}

WhisperEncoded Whisper::encode(const Tensor& features, const Tensor& mask, bool hidden_states, bool attentions) const {
  if (!config.spec_augment || !training() || features.dim() != 3) {
    return model.encoder.forward(features, mask, hidden_states, attentions);
  }
  Tensor masked = features;
  if (config.time_masking.probability > 0) {
    const Tensor lengths = mask.defined() ? mask.to(at::kLong).sum(-1) : Tensor();
    const Tensor spans =
        nn::draw_spans(features.size(0), features.size(2), config.time_masking, lengths, features.device());
    masked = masked.masked_fill(spans.unsqueeze(1), 0);
  }
  if (config.mel_masking.probability > 0) {
    const Tensor spans = nn::draw_spans(features.size(0), features.size(1), config.mel_masking, {}, features.device());
    masked = masked.masked_fill(spans.unsqueeze(2), 0);
  }
  return model.encoder.forward(masked, mask, hidden_states, attentions);
}

const Tensor& Whisper::tied_weight() const {
  static const Tensor none;
  return proj_out == nullptr ? model.decoder.words.weight : none;
}

Tensor Whisper::logits(const Tensor& hidden) const {
  const auto own = own_head();
  const Linear* const head = own ? own.get() : proj_out;
  return head != nullptr ? head->forward(hidden) : kernels::linear(hidden, model.decoder.words.weight, std::nullopt);
}

Tensor Whisper::loss(const Tensor& hidden, const Tensor& labels) const {
  const auto own = own_head();
  const Linear* const head = own ? own.get() : proj_out;
  if (head != nullptr && head->altered()) {
    return at::cross_entropy_loss(logits(hidden).flatten(0, 1).to(at::kFloat), labels.flatten());
  }
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("voxtorch::linear_cross_entropy", "")
                             .typed<Tensor(const Tensor&, const Tensor&, const OptionalTensor&, const Tensor&, int64_t,
                                           double, double, std::string_view, int64_t)>();
  const Tensor& weight = head != nullptr ? head->weight : model.decoder.words.weight;
  return op.call(hidden, weight, std::nullopt, labels, -100, 0, 0, "mean", 0);
}

Tensor Whisper::shifted(const Tensor& labels) const {
  TORCH_CHECK(labels.dim() == 2 && labels.size(0) > 0 && labels.size(1) > 0 && labels.scalar_type() == at::kLong,
              "labels must be int64 [batch, time], at least one token, got ", labels.scalar_type(), " ",
              labels.sizes());
  const Tensor before = labels.narrow(1, 0, labels.size(1) - 1);
  const Tensor start = at::full({labels.size(0), 1}, config.start, labels.options());
  return at::cat({start, before.masked_fill(before == -100, std::max<int64_t>(config.padding, 0))}, 1);
}

namespace {

using ModulePtr = c10::intrusive_ptr<Module>;
using Tensors = std::vector<Tensor>;
using OptionalModule = std::optional<ModulePtr>;

std::tuple<Tensor, Tensor, Tensors, Tensors> encoder_forward(const ModulePtr& self, const Tensor& features,
                                                             const OptionalTensor& mask, bool hidden_states,
                                                             bool attentions) {
  const Tensor real = mask.value_or(Tensor());
  const auto* alone = dynamic_cast<const WhisperEncoder*>(self.get());
  WhisperEncoded result =
      alone != nullptr
          ? alone->forward(features, real, hidden_states, attentions)
          : network<Whisper>(self, "whisper_encoder_forward").encode(features, real, hidden_states, attentions);
  return {result.last_hidden_state, result.mask, std::move(result.hidden_states), std::move(result.attentions)};
}

KvCache* cache_of(const OptionalModule& module) {
  return module ? &network<KvCache>(*module, "whisper_forward") : nullptr;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensors, Tensors, Tensors, Tensors, Tensors> forward_whisper(
    const ModulePtr& self, const OptionalTensor& features, const OptionalTensor& mask, const OptionalTensor& ids,
    const OptionalTensor& decoder_mask, const OptionalTensor& positions, const OptionalTensor& encoder_states,
    const OptionalTensor& encoder_mask, const OptionalTensor& labels, const OptionalModule& cache,
    const OptionalModule& encoder_cache, std::optional<int64_t> logits_to_keep, bool hidden_states, bool attentions) {
  const auto& whisper = network<Whisper>(self, "whisper_forward");
  const bool cached = cache.has_value() || encoder_cache.has_value();
  TORCH_CHECK(!cached || !labels, "give either labels or a cache: no gradient goes through a cache");
  TORCH_CHECK(!features || !encoder_states, "give either input_features or encoder_hidden_states");
  TORCH_CHECK(ids || labels, "give decoder_input_ids, or labels to make them from");
  TORCH_CHECK(!labels || !ids || labels->sizes().equals(ids->sizes()), "labels must be [batch, time] like ",
              "decoder_input_ids, got ", labels ? labels->sizes() : at::IntArrayRef{});
  TORCH_CHECK(!logits_to_keep || *logits_to_keep >= 0, "logits_to_keep must be 0 (all) or above, got ",
              *logits_to_keep);
  const at::AutoGradMode recording(at::GradMode::is_enabled() && !cached);
  const auto given = [](const OptionalTensor& tensor) { return tensor.value_or(Tensor()); };
  WhisperEncoded heard;
  heard.last_hidden_state = given(encoder_states);
  heard.mask = encoder_mask ? encoder_mask->to(at::kBool) : Tensor();
  if (features) {
    TORCH_CHECK(!encoder_mask,
                "encoder_attention_mask comes with encoder_hidden_states; with input_features give "
                "attention_mask, of their steps");
    heard = whisper.encode(*features, given(mask), hidden_states, attentions);
  }
  const Tensor read = ids ? *ids : whisper.shifted(*labels);
  WhisperDecoded result =
      whisper.model.decoder.forward({read, given(decoder_mask), given(positions), heard.last_hidden_state, heard.mask,
                                     cache_of(cache), cache_of(encoder_cache)},
                                    hidden_states, attentions);
  const Tensor& hidden = result.last_hidden_state;
  Tensor loss, logits;
  if (labels) loss = whisper.loss(hidden, *labels);
  if (logits_to_keep || !labels) logits = whisper.logits(nn::last_states(hidden, logits_to_keep.value_or(0)));
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

const RegisteredModule registered_whisper("whisper", make_module<Whisper>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // Of Whisper or its encoder alone.
  m.def(
      "whisper_encoder_forward(__torch__.torch.classes.voxtorch.Module self, Tensor input_features, Tensor? "
      "attention_mask=None, *, bool output_hidden_states=False, bool output_attentions=False) -> (Tensor "
      "last_hidden_state, Tensor attention_mask, Tensor[] hidden_states, Tensor[] attentions)",
      encoder_forward);
  // logits_to_keep: of the last tokens; 0: all; None: all without labels, none with labels. With a cache nothing is
  // recorded for backward.
  m.def(
      "whisper_forward(__torch__.torch.classes.voxtorch.Module self, Tensor? input_features=None, Tensor? "
      "attention_mask=None, *, Tensor? decoder_input_ids=None, Tensor? decoder_attention_mask=None, Tensor? "
      "decoder_position_ids=None, Tensor? encoder_hidden_states=None, Tensor? encoder_attention_mask=None, Tensor? "
      "labels=None, __torch__.torch.classes.voxtorch.Module? cache=None, __torch__.torch.classes.voxtorch.Module? "
      "encoder_cache=None, int? logits_to_keep=None, bool output_hidden_states=False, bool output_attentions=False) -> "
      "(Tensor loss, Tensor logits, Tensor last_hidden_state, Tensor encoder_last_hidden_state, Tensor[] "
      "decoder_hidden_states, Tensor[] decoder_attentions, Tensor[] cross_attentions, Tensor[] encoder_hidden_states, "
      "Tensor[] encoder_attentions)",
      forward_whisper);
}

}  // namespace voxtorch::models

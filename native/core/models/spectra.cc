#include "core/models/spectra.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/runtime/transfers.h"

namespace voxtorch::models {

using at::Tensor;

SpectraConfig::SpectraConfig(const Config& config)
    : fused_layers(config.integer("num_fused_layers", 1)),
      max_samples(config.integer("max_audio_length", 160000)),
      published(config.text("compat", "") == "published"),
      legacy_fusion_mask(config.boolean("legacy_fusion_mask", false)),
      padding_free(config.boolean("padding_free", !published && !legacy_fusion_mask)),
      legacy_cls_rows(config.boolean("legacy_audio_cls_rows", false)),
      mam_target_gradients(config.boolean("mam_target_gradients", published)),
      audio_cls(config.boolean("has_audio_cls", false)),
      multi_turn(config.has("multi_turn") ? std::optional<bool>(config.boolean("multi_turn", false)) : std::nullopt) {
  const std::string compat = config.text("compat", "");
  TORCH_CHECK(compat.empty() || published, "compat must be 'published' or absent, not '", compat, "'");
  TORCH_CHECK(!padding_free || (!published && !legacy_fusion_mask),
              "padding_free computes nothing for padding, which compat and legacy_fusion_mask read; leave it out");
  TORCH_CHECK(fused_layers > 0, "num_fused_layers must be positive, got ", fused_layers);
  TORCH_CHECK(max_samples > 0, "max_audio_length must be positive, got ", max_samples);
}

namespace {

SpeechConfig without_masking(const Config& config) {
  SpeechConfig c(config);
  TORCH_CHECK(c.adapter_layers == 0 && c.output_dim == c.dim,
              "add_adapter asks for adapter layers, which SPECTRA's audio encoder does not have");
  c.spec_augment = false;
  c.time_masking.probability = c.feature_masking.probability = 0;
  return c;
}

RobertaConfig fused_config(const SpectraConfig& config, RobertaConfig text) {
  text.layers = config.fused_layers;
  text.as_torch = true;
  return text;
}

}  // namespace

SpectraAudioEncoder::SpectraAudioEncoder(const ModuleOptions& options, const Config& config)
    : WavLM(options, config, without_masking(config)),
      cls(parameter("audio_cls", {SpeechEncoder::config.dim}, init::normal(1))),
      sep(parameter("audio_sep", {SpeechEncoder::config.dim}, init::normal(1))) {}

Spectra::Spectra(std::string kind, const ModuleOptions& options, const Config& given)
    : Module(std::move(kind), options),
      config(given),
      text_config(given.object("text_config")),
      audio_encoder(*child<SpectraAudioEncoder>("audio_encoder", given.object("audio_config"))),
      text_encoder(*child<Roberta>("text_encoder", text_config)),
      modalities(*child<nn::Embedding>("token_type_embeddings", 2, text_config.dim, -1, 1.0)),
      fused_encoder(*child<RobertaLayers>("fused_encoder", fused_config(config, text_config))) {
  const SpeechConfig& audio = audio_encoder.config;
  TORCH_CHECK(text_config.dim == audio.dim, "text_config.hidden_size ", text_config.dim,
              " and audio_config.hidden_size ", audio.dim, " must be the same: the fusion reads both");
  TORCH_CHECK(text_config.types >= 2, "text_config.type_vocab_size must be at least 2, got ", text_config.types);
  TORCH_CHECK(!config.published || audio.frames(config.max_samples) > 0, "max_audio_length ", config.max_samples,
              " makes no frame; the convolutions need at least ", audio.receptive_field(), " samples");
}

SpectraDense::SpectraDense(const ModuleOptions& options, int64_t in, int64_t out)
    : Linear(options, in, out, init::uniform(1 / std::sqrt(static_cast<double>(in))),
             init::uniform(1 / std::sqrt(static_cast<double>(in)))) {}

Tensor exact(const Tensor& tensor) { return tensor.scalar_type() == at::kDouble ? tensor : tensor.to(at::kFloat); }

std::vector<int64_t> on_host(const Tensor& tensor) {
  const Tensor here = tensor.to(at::kCPU, at::kLong).contiguous();
  const int64_t* data = here.const_data_ptr<int64_t>();
  return {data, data + here.numel()};
}

SpectraInputs Spectra::on_hand(SpectraInputs inputs, const std::vector<Tensor*>& more) const {
  if (config.padding_free && !inputs.host_mask.defined()) inputs.host_mask = inputs.mask.to(at::kBool);
  std::vector<Tensor*> wanted = {&inputs.lengths};
  if (inputs.host_mask.defined()) wanted.push_back(&inputs.host_mask);
  wanted.insert(wanted.end(), more.begin(), more.end());
  // Values that are not integers are refused where they are read.
  wanted.erase(std::remove_if(wanted.begin(), wanted.end(),
                              [](const Tensor* tensor) {
                                return tensor->is_cpu() || !c10::isIntegralType(tensor->scalar_type(), true);
                              }),
               wanted.end());
  if (wanted.empty()) return inputs;
  std::vector<Tensor> flat;
  std::vector<int64_t> counts;
  for (const Tensor* tensor : wanted) {
    flat.push_back(tensor->flatten().to(wanted[0]->device(), at::kLong));
    counts.push_back(tensor->numel());
  }
  const std::vector<Tensor> here = at::cat(flat).to(at::kCPU).split_with_sizes(counts);
  for (size_t i = 0; i < wanted.size(); ++i) {
    *wanted[i] = here[i].view(wanted[i]->sizes()).to(wanted[i]->scalar_type());
  }
  return inputs;
}

SpectraStates Spectra::read(const SpectraInputs& inputs, bool attentions) const {
  TORCH_CHECK(inputs.ids.dim() == 2 && inputs.ids.size(0) > 0 && inputs.ids.size(1) > 0,
              "input_ids must be [batch, time] with at least one token, got ", inputs.ids.sizes());
  TORCH_CHECK(inputs.mask.sizes().equals(inputs.ids.sizes()), "attention_mask must have the shape ", inputs.ids.sizes(),
              " of input_ids, got ", inputs.mask.sizes());
  TORCH_CHECK(!inputs.types.defined() || inputs.types.sizes().equals(inputs.ids.sizes()),
              "token_type_ids must have the shape ", inputs.ids.sizes(), " of input_ids, got ", inputs.types.sizes());
  RobertaInputs given;
  const Tensor mask = upload(inputs.mask, inputs.ids.device()).to(at::kBool);
  given.ids = inputs.ids;
  given.mask = inputs.host_mask.defined() && !attentions ? inputs.host_mask : mask;
  given.types = inputs.types;
  given.skips_padding = config.padding_free;
  RobertaOutput output = text_encoder.encode(given, false, attentions);
  return {output.last_hidden_state, mask, inputs.host_mask, std::move(output.attentions)};
}

// The formula of the authors' code rounds toward zero and takes one frame more than the samples give.
int64_t Spectra::counted_frames(int64_t samples, int64_t all) const {
  const SpeechConfig& c = audio_encoder.config;
  if (!config.published) return c.frames(samples);
  for (size_t i = 0; i < c.conv_kernel.size(); ++i) samples = (samples - c.conv_kernel[i]) / c.conv_stride[i] + 1;
  return std::clamp<int64_t>(samples + 1, 1, all);
}

SpectraClips Spectra::extract(const Tensor& given, const Tensor& given_lengths) const {
  TORCH_CHECK(given.dim() == 2 && given.size(0) > 0, "input_values must be [clips, samples], got ", given.sizes());
  TORCH_CHECK(given.is_floating_point(), "input_values must have a floating-point dtype, got ", given.scalar_type());
  TORCH_CHECK(given_lengths.dim() == 1 && given_lengths.size(0) == given.size(0), "audio_lengths must have the shape [",
              given.size(0), "] of the rows of input_values, got ", given_lengths.sizes());
  TORCH_CHECK(c10::isIntegralType(given_lengths.scalar_type(), false), "audio_lengths must have an integer dtype, got ",
              given_lengths.scalar_type());
  const SpeechConfig& c = audio_encoder.config;
  std::vector<int64_t> lengths = on_host(given_lengths);
  int64_t longest = 0;
  for (size_t row = 0; row < lengths.size(); ++row) {
    TORCH_CHECK(lengths[row] >= 0 && lengths[row] <= given.size(1), "audio_lengths says ", lengths[row],
                " samples for row ", row, ", but the rows of input_values have a size of ", given.size(1));
    if (config.published) lengths[row] = std::min(lengths[row], config.max_samples);
    longest = std::max(longest, lengths[row]);
  }
  const auto makes_frames = [&](int64_t length) { return c.frames(length) > 0; };
  if (config.padding_free && given.is_cpu() && std::any_of(lengths.begin(), lengths.end(), makes_frames) &&
      std::adjacent_find(lengths.begin(), lengths.end(), std::not_equal_to<>()) != lengths.end()) {
    return extract_each(given, lengths);
  }
  // What no row needs is not computed, and a row without speech still has a frame, which then counts as none.
  const int64_t width = config.published ? config.max_samples : std::max(longest, c.receptive_field());
  Tensor values = given.narrow(1, 0, std::min(width, given.size(1)));
  values = at::constant_pad_nd(values, {0, width - values.size(1)});
  const Tensor samples = upload(lengths, {given.size(0)}, given.device());
  values = values.masked_fill(at::arange(width, samples.options()) >= samples.unsqueeze(1), 0);

  const Tensor features = audio_encoder.extract(values, config.published ? Tensor() : samples);
  const int64_t all = features.size(1);
  SpectraClips clips{features.flatten(0, 1), {}, {}};
  for (size_t row = 0; row < lengths.size(); ++row) {
    clips.begins.push_back(static_cast<int64_t>(row) * all);
    clips.frames.push_back(counted_frames(lengths[row], all));
  }
  return config.padding_free ? without_padding(clips) : clips;
}

// Only the frames that count, unless there are none. None but those are projected then.
SpectraClips Spectra::without_padding(const SpectraClips& clips) {
  SpectraClips kept{{}, {}, clips.frames};
  std::vector<int64_t> places;
  for (size_t row = 0; row < clips.frames.size(); ++row) {
    kept.begins.push_back(static_cast<int64_t>(places.size()));
    for (int64_t frame = 0; frame < clips.frames[row]; ++frame) places.push_back(clips.begins[row] + frame);
  }
  const int64_t total = static_cast<int64_t>(places.size());
  if (total == 0 || total == clips.features.size(0)) return clips;
  kept.features = clips.features.index_select(0, upload(places, {total}, clips.features.device()));
  return kept;
}

// Each clip at its own length. At least one must have a frame.
SpectraClips Spectra::extract_each(const Tensor& values, const std::vector<int64_t>& lengths) const {
  SpectraClips clips;
  std::vector<Tensor> features;
  int64_t begin = 0;
  for (size_t row = 0; row < lengths.size(); ++row) {
    const int64_t frames = audio_encoder.config.frames(lengths[row]);
    clips.begins.push_back(begin);
    clips.frames.push_back(frames);
    begin += frames;
    if (frames == 0) continue;
    const Tensor clip = values.narrow(0, static_cast<int64_t>(row), 1).narrow(1, 0, lengths[row]);
    features.push_back(audio_encoder.extract(clip.contiguous()).squeeze(0));
  }
  clips.features = at::cat(features);
  return clips;
}

SpectraStates Spectra::listen(const SpectraClips& clips, const std::vector<SpectraTurns>& rows, bool with_types,
                              bool attentions) const {
  const Tensor frames = audio_encoder.project(clips.features);  // [steps, dim]
  const int64_t count = frames.size(0), dim = frames.size(1);
  const int64_t outputs = static_cast<int64_t>(rows.size());
  const bool pairs = rows[0].previous >= 0;
  const bool cls = pairs || config.audio_cls;

  // Where each step of the sequence comes from: a frame, `cls` or `sep` after all frames, or -1 for padding.
  const int64_t at_cls = count, at_sep = at_cls + 1;
  std::vector<std::vector<int64_t>> steps(rows.size());
  std::vector<int64_t> before;  // steps that belong to the previous turn
  size_t longest = 1;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto add = [&](int64_t clip) {
      const size_t c = static_cast<size_t>(clip);
      for (int64_t f = 0; f < clips.frames[c]; ++f) steps[i].push_back(clips.begins[c] + f);
    };
    if (cls) steps[i].push_back(at_cls);
    if (pairs) add(rows[i].previous);
    before.push_back(pairs ? static_cast<int64_t>(steps[i].size()) : 0);
    if (pairs) steps[i].push_back(at_sep);
    add(rows[i].current);
    longest = std::max(longest, steps[i].size());
  }
  const int64_t all = audio_encoder.config.frames(config.max_samples);
  const int64_t width = config.published ? (pairs ? 2 * all + 2 : all + (cls ? 1 : 0)) : static_cast<int64_t>(longest);

  std::vector<int64_t> index(static_cast<size_t>(outputs * width), 0);
  std::vector<int64_t> valid(index), keys(index), types(static_cast<size_t>(outputs * width), 1);
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t begin = i * static_cast<size_t>(width);
    for (size_t t = 0; t < steps[i].size(); ++t) {
      index[begin + t] = steps[i][t];
      valid[begin + t] = keys[begin + t] = 1;
      if (static_cast<int64_t>(t) < before[i]) types[begin + t] = 0;
    }
    // In the authors' code the vector before a single clip is masked.
    if (config.published && cls && !pairs) valid[begin] = keys[begin] = 0;
    // Attention needs a key; what comes of it is masked.
    if (steps[i].empty()) keys[begin] = 1;
  }
  const c10::Device device = frames.device();
  const auto mask_of = [&](const std::vector<int64_t>& values) {
    return at::tensor(values, at::TensorOptions().dtype(at::kLong)).view({outputs, width}).to(at::kBool);
  };
  Tensor table = frames;
  if (cls) {
    const Tensor learned = pairs ? at::stack({audio_encoder.cls, audio_encoder.sep}) : audio_encoder.cls.unsqueeze(0);
    table = at::cat({frames, learned.to(frames.scalar_type())});
  }
  Tensor x = table.index_select(0, upload(index, {outputs * width}, device)).view({outputs, width, dim});
  if (with_types) x = x + text_encoder.embed_types(upload(types, {outputs, width}, device));
  if (config.published && config.legacy_cls_rows && cls && !pairs) {
    TORCH_CHECK(outputs >= 2, "legacy_audio_cls_rows zeroes the last two rows of a batch, but it has a size of 1");
    x = at::cat({x.narrow(0, 0, outputs - 2), at::zeros_like(x.narrow(0, outputs - 2, 2))});
  }
  SpeechOutput output = audio_encoder.transform(x, mask_of(keys), false, attentions, config.padding_free);
  const Tensor host_mask = mask_of(valid);
  return {output.last_hidden_state, upload(host_mask, device), host_mask, std::move(output.attentions)};
}

SpectraStates Spectra::fuse(const SpectraStates& text, const SpectraStates& audio, bool attentions) const {
  const auto add_modality = [&](const Tensor& states, int64_t modality) {
    const auto options = at::TensorOptions().dtype(at::kLong).device(states.device());
    return states + modalities.forward(at::full({1, 1}, modality, options));
  };
  const Tensor x = at::cat({add_modality(text.states, 0), add_modality(audio.states, 1)}, 1);
  const Tensor mask = at::cat({text.mask, audio.mask}, 1);
  const bool known = text.host_mask.defined() && audio.host_mask.defined();
  const Tensor host_mask = known ? at::cat({text.host_mask, audio.host_mask}, 1) : Tensor();
  const auto segments = config.padding_free && !attentions ? nn::Segments::of(host_mask, x.device()) : std::nullopt;
  if (segments) {
    const RobertaOutput output = fused_encoder.forward(segments->pack(x), {}, false, false, segments);
    return {segments->pad(output.last_hidden_state), mask, host_mask, {}};
  }
  const Tensor seen = known ? nn::mask_for(host_mask, x.device()) : mask;
  RobertaOutput output = fused_encoder.forward(x, nn::attention_mask(seen), false, attentions);
  return {output.last_hidden_state, mask, host_mask, std::move(output.attentions)};
}

SpectraOutput Spectra::forward(const SpectraInputs& given, int64_t clips_per_text, std::optional<bool> with_types,
                               bool attentions) const {
  const SpectraInputs inputs = on_hand(given);
  TORCH_CHECK(clips_per_text == 1 || clips_per_text == 2, "audios_per_text must be 1 or 2, got ", clips_per_text);
  SpectraOutput output;
  output.text = read(inputs, attentions);
  const int64_t texts = inputs.ids.size(0);
  TORCH_CHECK(inputs.values.dim() == 2 && inputs.values.size(0) == texts * clips_per_text, "input_values must have ",
              clips_per_text, " row(s) for each of ", texts, " texts, so a shape of [", texts * clips_per_text,
              ", samples], got ", inputs.values.sizes(), "; audios_per_text says how many");
  std::vector<SpectraTurns> rows;
  for (int64_t i = 0; i < texts; ++i) {
    rows.push_back(clips_per_text == 2 ? SpectraTurns{2 * i, 2 * i + 1} : SpectraTurns{-1, i});
  }
  const bool types = with_types.value_or(config.multi_turn.value_or(clips_per_text == 2));
  output.audio = listen(extract(inputs.values, inputs.lengths), rows, types, attentions);
  output.fused = fuse(output.text, output.audio, attentions);
  return output;
}

namespace {

using OptionalTensor = std::optional<Tensor>;
using Tensors = std::vector<Tensor>;

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensors, Tensors, Tensors> forward_spectra(
    const c10::intrusive_ptr<Module>& self, const Tensor& ids, const Tensor& mask, const OptionalTensor& types,
    const Tensor& values, const Tensor& lengths, int64_t audios_per_text, bool attentions) {
  SpectraOutput output = network<Spectra>(self, "spectra_forward")
                             .forward({ids, mask, types.value_or(Tensor()), values, lengths, {}}, audios_per_text,
                                      std::nullopt, attentions);
  return {output.fused.states,
          output.fused.mask,
          output.text.states,
          output.audio.states,
          std::move(output.fused.attentions),
          std::move(output.text.attentions),
          std::move(output.audio.attentions)};
}

const RegisteredModule registered_spectra("spectra", make_module<Spectra>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "spectra_forward(__torch__.torch.classes.voxtorch.Module self, *, Tensor input_ids, Tensor attention_mask, "
      "Tensor? token_type_ids=None, Tensor input_values, Tensor audio_lengths, int audios_per_text=1, bool "
      "output_attentions=False) -> (Tensor last_hidden_state, Tensor attention_mask, Tensor text_hidden_state, Tensor "
      "audio_hidden_state, Tensor[] attentions, Tensor[] text_attentions, Tensor[] audio_attentions)",
      forward_spectra);
}

}  // namespace voxtorch::models

// SPECTRA with the heads of its pre-training, whose four losses are computed here.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/l1_loss.h>
#include <ATen/ops/mse_loss.h>
#include <torch/library.h>

#include <algorithm>
#include <numeric>

#include "core/models/spectra.h"
#include "core/runtime/transfers.h"

namespace voxtorch::models {

using at::Tensor;
using nn::LayerNorm;
using nn::Linear;
using Indices = std::vector<int64_t>;

namespace {

constexpr int64_t kIgnored = -100;
constexpr int64_t kPairings = 4;  // of a positive or negative text with a positive or negative audio
constexpr int64_t kClips = 3;     // of an example: previous, current, negative

int64_t size_of(const Indices& indices) { return static_cast<int64_t>(indices.size()); }

// The rows of [..., dim] with these numbers, all leading dimensions counted as one.
Tensor rows_of(const Tensor& states, const Indices& places) {
  const Tensor flat = states.reshape({-1, states.size(-1)});
  return flat.index_select(0, upload(places, {size_of(places)}, states.device()));
}

// dense, gelu, norm, decoder: predicts words or frames.
class SpectraPredictionHead : public Block {
 public:
  SpectraPredictionHead(const ModuleOptions& options, const RobertaConfig& c, int64_t out)
      : Block("SpectraPredictionHead", options),
        dense(*child<SpectraDense>("dense", c.dim, c.dim)),
        norm(*child<LayerNorm>("layer_norm", c.dim, c.eps)),
        decoder(*child<SpectraDense>("decoder", c.dim, out)) {}

  Tensor hidden(const Tensor& x) const { return norm.forward(dense.forward(x, gelu)); }
  Tensor forward(const Tensor& x) const { return watched(x, decoder.forward(hidden(x))); }

 private:
  const nn::Activation gelu = nn::activation("gelu");
  Linear& dense;
  LayerNorm& norm;

 public:
  Linear& decoder;
};

// A sequence of one layer.
class SpectraTimeHead : public Block {
 public:
  SpectraTimeHead(const ModuleOptions& options, int64_t dim)
      : Block("Sequential", options), layer(*child<SpectraDense>("0", dim, 1)) {}
  Tensor forward(const Tensor& x) const { return watched(x, layer.forward(x).squeeze(-1)); }  // [..., dim] -> [...]

 private:
  Linear& layer;
};

struct PretrainingTargets {
  Tensor words;                 // int64 [batch, time], -100: none
  Tensor mam_mask, mam_source;  // [3 * batch, frames]
  Tensor start_mask, end_mask;  // bool [batch, time]
  Tensor starts, ends;          // [words]
};

struct PretrainingOutput {
  Tensor mlm, mam, crs, tpp, pairing_logits, starts, ends;
};

class SpectraForPreTraining : public Spectra {
 public:
  SpectraForPreTraining(const ModuleOptions& options, const Config& given)
      : Spectra("SpectraForPreTraining", options, given),
        words(*child<SpectraPredictionHead>("mlm_head", text_config, text_config.vocabulary)),
        frames(*child<SpectraPredictionHead>("mam_head", text_config, audio_encoder.config.conv_dim.back())),
        selection(*child<SpectraDense>("selection_head", text_config.dim, kPairings)),
        start(*child<SpectraTimeHead>("start_prediction_head", text_config.dim)),
        end(*child<SpectraTimeHead>("end_prediction_head", text_config.dim)) {}

  PretrainingOutput losses(const SpectraInputs& inputs, const PretrainingTargets& targets) const;

 private:
  // A frame to predict: of which clip, and which.
  struct Frame {
    int64_t clip, frame;
  };

  static int64_t examples_of(const SpectraInputs& inputs, const PretrainingTargets& targets);
  Tensor word_loss(const Tensor& text, const Tensor& labels) const;
  std::vector<Frame> corrupt(SpectraClips& clips, const PretrainingTargets& targets) const;
  Tensor frame_loss(const Tensor& fused, int64_t time, const SpectraClips& clips, const Tensor& clean,
                    const std::vector<Frame>& masked) const;

 public:
  SpectraPredictionHead &words, &frames;
  Linear& selection;
  SpectraTimeHead &start, &end;
};

int64_t SpectraForPreTraining::examples_of(const SpectraInputs& inputs, const PretrainingTargets& targets) {
  const auto ids = inputs.ids.sizes(), values = inputs.values.sizes();
  TORCH_CHECK(ids.size() == 2 && ids[0] > 0 && ids[0] % 2 == 0,
              "input_ids must be [2 * batch, time], a positive and a negative text for each example, got ", ids);
  const int64_t batch = ids[0] / 2;
  TORCH_CHECK(values.size() == 2 && values[0] == kClips * batch, "input_values must be [3 * batch, samples] with ",
              kClips * batch, " rows (previous, current and negative clip of each example), got ", values);
  const std::pair<const Tensor&, const char*> of_words[] = {
      {targets.words, "mlm_labels"}, {targets.start_mask, "start_mask"}, {targets.end_mask, "end_mask"}};
  for (const auto& [tensor, name] : of_words) {
    TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) == batch && tensor.size(1) == ids[1], name,
                " must have the shape [", batch, ", ", ids[1], "] of the positive texts, got ", tensor.sizes());
  }
  const Tensor &mask = targets.mam_mask, &source = targets.mam_source;
  TORCH_CHECK(mask.dim() == 2 && mask.size(0) == kClips * batch && source.sizes().equals(mask.sizes()),
              "mam_mask and mam_source must have one shape [", kClips * batch, ", frames], got ", mask.sizes(), " and ",
              source.sizes());
  return batch;
}

// Changes the features of the clips as the mask says, and returns what there is to predict: of the previous and the
// current clip.
std::vector<SpectraForPreTraining::Frame> SpectraForPreTraining::corrupt(SpectraClips& clips,
                                                                         const PretrainingTargets& targets) const {
  enum : int64_t { kUntouched, kZeroed, kReplaced, kKept };
  const int64_t rows = size_of(clips.frames), steps = clips.features.size(0), width = targets.mam_mask.size(1);
  const Indices mask = on_host(targets.mam_mask), source = on_host(targets.mam_source);
  Indices taken(static_cast<size_t>(steps)), zeroed(taken.size(), 0);
  std::iota(taken.begin(), taken.end(), 0);
  std::vector<Frame> masked;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t count = clips.frames[static_cast<size_t>(row)], begin = clips.begins[static_cast<size_t>(row)];
    for (int64_t f = 0; f < width; ++f) {
      const int64_t action = mask[static_cast<size_t>(row * width + f)];
      if (action == kUntouched) continue;
      TORCH_CHECK(f < count, "mam_mask marks frame ", f, " of row ", row, ", an index that is not among its ", count,
                  " frames");
      TORCH_CHECK(action > kUntouched && action <= kKept, "mam_mask is 0 to 3, but has ", action, " at index ", f,
                  " of row ", row);
      if (action == kZeroed) zeroed[static_cast<size_t>(begin + f)] = 1;
      if (action == kReplaced) {
        const int64_t from = source[static_cast<size_t>(row * width + f)];
        TORCH_CHECK(from >= 0 && from < count, "mam_source names the frame ", from, " for index ", f, " of row ", row,
                    ", which is not among its ", count, " frames");
        taken[static_cast<size_t>(begin + f)] = begin + from;
      }
      if (row % kClips < 2) masked.push_back({row, f});
    }
  }
  const c10::Device device = clips.features.device();
  const Tensor zeros = upload(zeroed, {steps, 1}, device).to(at::kBool);
  clips.features = rows_of(clips.features, taken).masked_fill(zeros, 0);
  return masked;
}

Tensor SpectraForPreTraining::word_loss(const Tensor& text, const Tensor& given) const {
  const Indices all = on_host(given);
  Indices places, labels;
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i] == kIgnored) continue;
    TORCH_CHECK(all[i] >= 0 && all[i] < text_config.vocabulary, "mlm_labels has the index ", all[i], ", but there are ",
                text_config.vocabulary, " tokens; what is not to be predicted is -100");
    places.push_back(static_cast<int64_t>(i));
    labels.push_back(all[i]);
  }
  const Tensor read = rows_of(text, places);
  const Tensor targets = upload(labels, {size_of(labels)}, text.device());
  if (!places.empty() && (words.hooked() || words.decoder.altered())) {
    return at::cross_entropy_loss(exact(words.forward(read)), targets);
  }
  const Tensor hidden = words.hidden(read);
  if (places.empty()) return exact(hidden).sum();
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("voxtorch::linear_cross_entropy", "")
                             .typed<Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, const Tensor&,
                                           int64_t, double, double, std::string_view, int64_t)>();
  return op.call(hidden, words.decoder.weight, words.decoder.bias, targets, kIgnored, 0, 0, "mean", 0);
}

// `fused` are the states of positive text and audio, [batch, time of text and audio, dim].
Tensor SpectraForPreTraining::frame_loss(const Tensor& fused, int64_t time, const SpectraClips& clips,
                                         const Tensor& clean, const std::vector<Frame>& masked) const {
  Indices predicted, wanted;
  for (const Frame& m : masked) {
    const int64_t example = m.clip / kClips;
    const bool is_previous = m.clip % kClips == 0;
    // After the text: a vector, the previous clip, a vector, the current clip.
    const int64_t begin = is_previous ? 1 : clips.frames[static_cast<size_t>(example * kClips)] + 2;
    predicted.push_back(example * fused.size(1) + time + begin + m.frame);
    wanted.push_back(clips.begins[static_cast<size_t>(m.clip)] + m.frame);
  }
  const Tensor target = rows_of(config.mam_target_gradients ? clean : clean.detach(), wanted);
  const Tensor sum = at::l1_loss(exact(frames.forward(rows_of(fused, predicted))), exact(target), at::Reduction::Sum);
  return sum / std::max<int64_t>(1, target.numel());
}

Indices marked(const Tensor& mask) {
  const Indices all = on_host(mask);
  Indices places;
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i] != 0) places.push_back(static_cast<int64_t>(i));
  }
  return places;
}

// The states at the marked places, as many as there are times.
Tensor at_marks(const Tensor& text, const Tensor& mask, const Tensor& times, const char* name) {
  const Indices places = marked(mask);
  TORCH_CHECK(times.dim() == 1 && times.size(0) == size_of(places), name, "_mask marks ", places.size(), " tokens, so ",
              name, "s must have the shape [", places.size(), "], got ", times.sizes());
  return rows_of(text, places);
}

PretrainingOutput SpectraForPreTraining::losses(const SpectraInputs& given,
                                                const PretrainingTargets& given_targets) const {
  const int64_t batch = examples_of(given, given_targets);
  PretrainingTargets targets = given_targets;
  const SpectraInputs inputs =
      on_hand(given, {&targets.words, &targets.mam_mask, &targets.mam_source, &targets.start_mask, &targets.end_mask});
  const SpectraStates text = read(inputs, false);
  SpectraClips clips = extract(inputs.values, inputs.lengths);
  const Tensor clean = clips.features;
  const std::vector<Frame> masked = corrupt(clips, targets);
  std::vector<SpectraTurns> rows;
  for (int64_t i = 0; i < batch; ++i) {
    rows.push_back({kClips * i, kClips * i + 1});
    rows.push_back({kClips * i, kClips * i + 2});
  }
  const SpectraStates audio = listen(clips, rows, true, false);

  // Text p, p, n, n with audio p, n, p, n.
  Indices text_rows, audio_rows, text_masks, audio_masks, classes;
  for (int64_t row = 0; row < kPairings * batch; ++row) {
    const int64_t example = row / kPairings, pairing = row % kPairings;
    text_rows.push_back(2 * example + pairing / 2);
    audio_rows.push_back(2 * example + pairing % 2);
    text_masks.push_back(config.legacy_fusion_mask ? row % (2 * batch) : text_rows.back());
    audio_masks.push_back(config.legacy_fusion_mask ? row % (2 * batch) : audio_rows.back());
    classes.push_back(pairing);
  }
  const auto expanded = [&](const SpectraStates& of, const Indices& states, const Indices& masks) {
    const auto take = [&](const Tensor& tensor, const Indices& places) {
      return tensor.index_select(0, upload(places, {size_of(places)}, tensor.device()));
    };
    return SpectraStates{take(of.states, states),
                         take(of.mask, masks),
                         of.host_mask.defined() ? take(of.host_mask, masks) : Tensor(),
                         {}};
  };
  const Tensor fused =
      fuse(expanded(text, text_rows, text_masks), expanded(audio, audio_rows, audio_masks), false).states;
  const int64_t time = text.states.size(1);
  const Tensor positive = fused.unflatten(0, {batch, kPairings}).select(1, 0);  // [batch, time of both, dim]
  const Tensor words_read = positive.narrow(1, 0, time);

  PretrainingOutput output;
  output.mlm = word_loss(words_read, targets.words);
  output.mam = frame_loss(positive, time, clips, clean, masked);
  output.pairing_logits = selection.forward(fused.select(1, 0));
  output.crs =
      at::cross_entropy_loss(exact(output.pairing_logits), upload(classes, {size_of(classes)}, fused.device()));
  output.starts = start.forward(at_marks(words_read, targets.start_mask, targets.starts, "start"));
  output.ends = end.forward(at_marks(words_read, targets.end_mask, targets.ends, "end"));
  const Tensor predicted = exact(at::cat({output.starts, output.ends}));
  const Tensor wanted = upload(at::cat({targets.starts, targets.ends}), predicted.device()).to(predicted.scalar_type());
  output.tpp = at::mse_loss(predicted, wanted, at::Reduction::Sum) / std::max<int64_t>(1, predicted.numel());
  return output;
}

using OptionalTensor = std::optional<Tensor>;
using Tensors = std::vector<Tensor>;
using ModulePtr = c10::intrusive_ptr<Module>;

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> pretraining_forward(
    const ModulePtr& self, const Tensor& ids, const Tensor& mask, const OptionalTensor& types, const Tensor& values,
    const Tensor& lengths, const Tensor& mlm_labels, const Tensor& mam_mask, const Tensor& mam_source,
    const Tensor& start_mask, const Tensor& end_mask, const Tensor& starts, const Tensor& ends) {
  const auto& model = network<SpectraForPreTraining>(self, "spectra_pretraining_forward");
  const PretrainingOutput output = model.losses({ids, mask, types.value_or(Tensor()), values, lengths, {}},
                                                {mlm_labels, mam_mask, mam_source, start_mask, end_mask, starts, ends});
  return {output.mlm + output.mam + output.crs + output.tpp,
          output.mlm,
          output.mam,
          output.crs,
          output.tpp,
          output.pairing_logits,
          output.starts,
          output.ends};
}

// What the heads say of pairs of texts and clips as they are.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensors> predict(const ModulePtr& self, const Tensor& ids,
                                                                    const Tensor& mask, const OptionalTensor& types,
                                                                    const Tensor& values, const Tensor& lengths,
                                                                    int64_t audios_per_text, bool attentions) {
  const auto& model = network<SpectraForPreTraining>(self, "spectra_pretraining_predict");
  // As pre-training has it, speech always has token types.
  SpectraOutput output =
      model.forward({ids, mask, types.value_or(Tensor()), values, lengths, {}}, audios_per_text, true, attentions);
  const Tensor& fused = output.fused.states;
  const Tensor text = fused.narrow(1, 0, ids.size(1));
  return {fused,
          output.fused.mask,
          model.selection.forward(fused.select(1, 0)),
          model.start.forward(text),
          model.end.forward(text),
          std::move(output.fused.attentions)};
}

const RegisteredModule registered_spectra_pretraining("spectra_pretraining", make_module<SpectraForPreTraining>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "spectra_pretraining_forward(__torch__.torch.classes.voxtorch.Module self, *, Tensor input_ids, Tensor "
      "attention_mask, Tensor? token_type_ids=None, Tensor input_values, Tensor audio_lengths, Tensor mlm_labels, "
      "Tensor mam_mask, Tensor mam_source, Tensor start_mask, Tensor end_mask, Tensor starts, Tensor ends) -> (Tensor "
      "loss, Tensor mlm_loss, Tensor mam_loss, Tensor crs_loss, Tensor tpp_loss, Tensor crs_logits, Tensor "
      "start_predictions, Tensor end_predictions)",
      pretraining_forward);
  m.def(
      "spectra_pretraining_predict(__torch__.torch.classes.voxtorch.Module self, *, Tensor input_ids, Tensor "
      "attention_mask, Tensor? token_type_ids=None, Tensor input_values, Tensor audio_lengths, int "
      "audios_per_text=1, bool output_attentions=False) -> (Tensor last_hidden_state, Tensor attention_mask, Tensor "
      "crs_logits, Tensor starts, Tensor ends, Tensor[] attentions)",
      predict);
}

}  // namespace voxtorch::models

// SPECTRA (Yu et al. 2023, https://arxiv.org/abs/2305.11579): RoBERTa over the words, WavLM over the speech, and
// RoBERTa layers over both, with the names of the published checkpoint. The heads are in spectra_pretraining.cc and
// spectra_classification.cc.
#pragma once

#include "core/models/roberta.h"
#include "core/models/wavlm.h"

namespace voxtorch::models {

struct SpectraConfig {
  explicit SpectraConfig(const Config& config);
  int64_t fused_layers, max_samples;
  // As the authors' code computes: audio padded or cut to max_samples, norms over padding too, a frame more than there
  // is.
  bool published;
  bool legacy_fusion_mask;    // masks of other rows, as the authors' pre-training has them
  bool padding_free;          // computes nothing for padding
  bool legacy_cls_rows;       // the last two rows zeroed, as the authors' fine-tuning has it
  bool mam_target_gradients;  // gradients through the frames that masked acoustic modeling shall predict
  bool audio_cls;
  std::optional<bool> multi_turn;  // whether speech gets token types; unset: where there are two clips
};

struct SpectraInputs {
  at::Tensor ids, mask, types;  // [batch, time]; types undefined: all 0
  at::Tensor values;            // [clips, samples]
  at::Tensor lengths;           // int64 [clips]: valid samples
  at::Tensor host_mask;         // the mask on the CPU, bool; undefined: not known there
};

// WavLM with two learned vectors that stand before and between clips.
class SpectraAudioEncoder : public WavLM {
 public:
  SpectraAudioEncoder(const ModuleOptions& options, const Config& config);
  const at::Tensor cls, sep;  // [dim]
};

// The convolutions' frames of some clips, one clip's after the other's: where each begins, and how many of it count.
struct SpectraClips {
  at::Tensor features;  // [steps, channels]
  std::vector<int64_t> begins, frames;
};

// The clips that one row of audio consists of.
struct SpectraTurns {
  int64_t previous;  // -1: none
  int64_t current;
};

struct SpectraStates {
  at::Tensor states;     // [rows, time, dim]
  at::Tensor mask;       // bool [rows, time]
  at::Tensor host_mask;  // the same on the CPU; undefined: not known there
  std::vector<at::Tensor> attentions;
};

struct SpectraOutput {
  SpectraStates text, audio, fused;
};

class Spectra : public Module {
 public:
  Spectra(const ModuleOptions& options, const Config& config) : Spectra("Spectra", options, config) {}
  // Texts with one or two clips each, those of a text in adjacent rows: previous, current.
  SpectraOutput forward(const SpectraInputs& inputs, int64_t clips_per_text, std::optional<bool> with_types,
                        bool attentions) const;

  // The same inputs with those that decide what is computed on the CPU, and so `more`, tensors of integers of a
  // loss: a device is waited for once, and not at all where they are on the CPU already.
  SpectraInputs on_hand(SpectraInputs inputs, const std::vector<at::Tensor*>& more = {}) const;

  // The steps of forward, with inputs that are on hand. Each row's clips stand one after the other, without the padding
  // of any.
  SpectraStates read(const SpectraInputs& inputs, bool attentions) const;
  SpectraClips extract(const at::Tensor& values, const at::Tensor& lengths) const;
  SpectraStates listen(const SpectraClips& clips, const std::vector<SpectraTurns>& rows, bool with_types,
                       bool attentions) const;
  SpectraStates fuse(const SpectraStates& text, const SpectraStates& audio, bool attentions) const;

  const SpectraConfig config;
  const RobertaConfig text_config;
  SpectraAudioEncoder& audio_encoder;
  Roberta& text_encoder;
  nn::Embedding& modalities;
  RobertaLayers& fused_encoder;

 protected:
  Spectra(std::string kind, const ModuleOptions& options, const Config& config);

 private:
  int64_t counted_frames(int64_t samples, int64_t all) const;
  static SpectraClips without_padding(const SpectraClips& clips);
  SpectraClips extract_each(const at::Tensor& values, const std::vector<int64_t>& lengths) const;
};

// With the first values that torch.nn.Linear has.
class SpectraDense : public nn::Linear {
 public:
  SpectraDense(const ModuleOptions& options, int64_t in, int64_t out);
};

// For losses, which are not computed in half precision.
at::Tensor exact(const at::Tensor& tensor);

// A tensor of integers, wherever it is.
std::vector<int64_t> on_host(const at::Tensor& tensor);

}  // namespace voxtorch::models

// What wav2vec 2.0 and its descendants share: waveform -> convolutions -> projection -> transformer, with the names of
// transformers' models. They differ in how their layers attend, and in what else the configuration says: Hubert in the
// norm of its projection, Data2VecAudio in its convolutions for positions.
#pragma once

#include <functional>

#include "core/nn/encoder_layer.h"
#include "core/nn/norm.h"
#include "core/nn/spec_augment.h"

namespace voxtorch::models {

struct SpeechConfig {
  explicit SpeechConfig(const Config& config);

  int64_t dim, layers, heads, intermediate;
  std::vector<int64_t> conv_dim, conv_kernel, conv_stride;
  bool conv_bias;
  bool group_norm;  // after the first convolution only; else a layer norm after each
  bool projection_norm;
  int64_t position_kernel, position_groups;
  int64_t position_layers;   // convolutions, each with a norm over features (Data2VecAudio); 0: one, whose weight is
                             // normalized
  bool position_batch_norm;  // before a plain convolution (Hubert)
  bool zero_biases;          // whether biases of convolutions and projection start at 0 (Hubert)
  bool norm_first;           // "stable" layer norm
  double eps, std;
  std::string activation, conv_activation;
  double dropout, attention_dropout, activation_dropout, projection_dropout, layer_drop;
  bool spec_augment;
  nn::SpanMasking time_masking, feature_masking;
  // Convolutions after the transformer that shorten time (add_adapter), each by its stride; 0 layers: none.
  int64_t adapter_layers, adapter_kernel, adapter_stride, output_dim;
  int64_t
      attention_adapter;  // width of the small layer after each layer's feed-forward one (adapter_attn_dim); 0: none

  // Conformer layers (speech_conformer.h): Wav2Vec2Conformer, and w2v-BERT 2.0, which reads spectra of so many features
  // (0: waveforms), whose convolutions are causal, and which has no norm after the layers.
  bool conformer;
  int64_t feature_dim;
  std::string positions;  // "relative", "rotary", "relative_key", or "" for none
  int64_t left_positions, right_positions, depthwise_kernel;
  double rotary_base, conv_dropout;
  bool intermediate_ffn;
  std::string adapter_activation;
  // Emotion2Vec: learned tokens before the frames, and attention biases that fall with the distance (ALiBi), each head
  // by its own slope and a learned scale.
  int64_t extra_tokens, alibi_heads;  // 0: none
  bool alibi_per_layer, alibi_per_head;
  double alibi_scale;           // initial
  double input_dropout;         // before the first layer
  double feed_forward_dropout;  // of its output
  double layer_eps() const { return feature_dim > 0 ? eps : 1e-5; }
  // Of what the projection reads.
  int64_t projected_dim() const { return feature_dim > 0 ? feature_dim : conv_dim.back(); }
  nn::FeedForwardShape feed_forward(int64_t width, const std::string& function) const {
    return {width, intermediate, function, std, activation_dropout, feed_forward_dropout};
  }
  bool has_adapter() const { return adapter_layers > 0 || output_dim != dim; }

  // Frames that the convolutions make of so many samples; 0 where there are too few.
  int64_t frames(int64_t samples) const;
  // The fewest samples that make a frame.
  int64_t receptive_field() const;

 private:
  void check_conformer() const;
};

// Biases of attention by distance (Press et al. 2022, https://arxiv.org/abs/2108.12409), symmetric as in data2vec 2.0:
// -slope * |i - j| for frames, 0 for the extra tokens before them. slopes [heads] -> [heads, time, time].
at::Tensor alibi_biases(const at::Tensor& slopes, int64_t time, int64_t extra_tokens);

// The attention of one layer.
class SpeechAttention : public Block {
 public:
  using Block::Block;
  // A bias for pairs of positions that the first layer makes for all, [heads, 2 * time - 1]; undefined: none.
  virtual at::Tensor relative_bias(int64_t time) const { return {}; }
  // x [batch, time, dim], mask bool [batch, time] or undefined; the output is [batch, time, dim].
  virtual nn::Attended forward(const at::Tensor& x, const at::Tensor& mask, const at::Tensor& relative,
                               bool with_weights) const = 0;
  // The same of sequences in one row, x [1, total, dim].
  virtual at::Tensor forward_each(const at::Tensor& x, const nn::Segments& segments,
                                  const at::Tensor& relative) const = 0;
};
using MakeAttention =
    std::function<c10::intrusive_ptr<SpeechAttention>(const ModuleOptions&, const SpeechConfig&, int64_t layer)>;

struct SpeechInputs {
  at::Tensor values;     // [batch, samples], or spectra [batch, time, feature_dim]
  at::Tensor mask;       // [batch, samples or time], 1 for what is there; may be undefined
  at::Tensor time_mask;  // [batch, frames], true where SpecAugment masks; undefined: drawn while training
};

struct SpeechOutput {
  at::Tensor last_hidden_state;           // [batch, frames, dim]
  at::Tensor extract_features;            // [batch, frames, conv_dim.back()]: the convolutions' output, normalized
  std::vector<at::Tensor> hidden_states;  // the first layer's input and each layer's output, where asked for
  std::vector<at::Tensor> attentions;     // [batch, heads, frames, frames] per layer, where asked for
  at::Tensor mask = {};                   // bool [batch, frames], of SpeechEncoder::forward; undefined: all are valid
};

class SpeechFeatureExtractor;
class SpeechFeatureProjection;
class SpeechTransformer;
class SpeechAdapter;
class ConformerAdapter;

class SpeechEncoder : public Block {
 public:
  SpeechEncoder(std::string kind, const ModuleOptions& options, const SpeechConfig& config,
                const MakeAttention& attention);
  SpeechOutput forward(const SpeechInputs& inputs, bool hidden_states = false, bool attentions = false) const;

  // The steps of forward, for networks that do something of their own between them.
  // values [batch, samples] -> [batch, frames, conv_dim.back()], not normalized. With `samples`, the valid ones of each
  // row in an int64 [batch], a norm over time takes its statistics from windows of those alone.
  at::Tensor extract(const at::Tensor& values, const at::Tensor& samples = {}) const;
  at::Tensor project(const at::Tensor& features) const;  // [batch, frames, conv_dim.back()] -> [batch, frames, dim]
  // x [batch, time, dim], mask bool [batch, time], there or on the CPU, or undefined. `skips_padding` computes nothing
  // for padding where that saves work and the mask is on the CPU, and its states are then 0.
  SpeechOutput transform(const at::Tensor& x, const at::Tensor& mask, bool hidden_states, bool attentions,
                         bool skips_padding = false) const;

  const SpeechConfig config;
  const at::Tensor masked_spec_embed;               // [dim]; undefined where the configuration masks nothing
  SpeechFeatureExtractor* const feature_extractor;  // null: the input is spectra
  SpeechFeatureProjection& feature_projection;
  SpeechTransformer& encoder;
  nn::FeedForward* const intermediate_ffn;    // before the adapter of w2v-BERT 2.0; null: none
  SpeechAdapter* const adapter;               // null: none
  ConformerAdapter* const conformer_adapter;  // that of w2v-BERT 2.0

 private:
  void check(const SpeechInputs& inputs) const;
  at::Tensor augment(const at::Tensor& x, const at::Tensor& given, const at::Tensor& lengths) const;
};

// What an operator of such a network returns.
using SpeechResult = std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>, std::vector<at::Tensor>>;
SpeechResult speech_forward(const SpeechEncoder& model, const at::Tensor& values, const std::optional<at::Tensor>& mask,
                            const std::optional<at::Tensor>& time_mask, bool hidden_states, bool attentions);

}  // namespace voxtorch::models

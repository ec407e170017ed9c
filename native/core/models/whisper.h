// Whisper (Radford et al. 2022, https://arxiv.org/abs/2212.04356): an encoder of log-mel spectrograms and a decoder
// that writes the transcript, with the names of transformers' WhisperForConditionalGeneration.
#pragma once

#include <functional>

#include "core/generation/stepper.h"
#include "core/nn/checkpoint.h"
#include "core/nn/conv.h"
#include "core/nn/embedding.h"
#include "core/nn/encoder_layer.h"
#include "core/nn/functions.h"
#include "core/nn/kv_cache.h"
#include "core/nn/norm.h"
#include "core/nn/spec_augment.h"
#include "core/nn/tied_head.h"

namespace voxtorch::models {

struct WhisperConfig {
  // Checks what an encoder is made of;
  explicit WhisperConfig(const Config& config);
  // and what only a decoder needs.
  void check_decoder() const;
  int64_t vocabulary, mels, dim;
  int64_t encoder_layers, encoder_heads, encoder_intermediate, source_positions;
  int64_t decoder_layers, decoder_heads, decoder_intermediate, target_positions;
  int64_t median_filter_width;
  int64_t padding, start;   // pad_token_id (-1: none), decoder_start_token_id
  int64_t encoder_pooling;  // frames whose mean is one frame of the output, before the last norm
  bool silences_padding;    // whether padding is silence to the convolutions too; otherwise only attention skips it
  double std, dropout, attention_dropout, activation_dropout, encoder_layer_drop, decoder_layer_drop;
  std::string activation;
  bool tied, spec_augment;
  bool key_bias = false;  // of the encoder's attention
  nn::SpanMasking time_masking, mel_masking;
};

// Keys and values of what is attended to, [batch, heads, time, head_dim].
using KeysValues = std::pair<at::Tensor, at::Tensor>;

class WhisperAttention : public Block {
 public:
  WhisperAttention(const ModuleOptions& options, int64_t dim, int64_t heads, double dropout, double std,
                   bool key_bias = false);
  KeysValues keys_values(const at::Tensor& source) const;  // [batch, time, dim]
  // What x [rows, time, dim] takes from them, [rows, time, dim], before `output`. There may be `rows / batch` rows of x
  // for each row of the keys, one after the other. `causal`: in place of a mask, each query sees the keys up to its
  // own.
  nn::Attended attend(const at::Tensor& x, const KeysValues& keys, const at::Tensor& mask, bool causal,
                      bool with_weights) const;
  // The same of x [1, total, dim] to itself, each sequence alone.
  at::Tensor attend_each(const at::Tensor& x, const nn::Segments& segments) const;
  // residual + dropout(output(attended)), where `attended` is what x takes.
  at::Tensor add(const at::Tensor& x, const at::Tensor& attended, const at::Tensor& residual, double dropout) const;
  // How some heads divide their attention, float32 [batch, chosen, time, keys].
  at::Tensor weights(const at::Tensor& x, const at::Tensor& keys, const std::vector<int64_t>& chosen) const;

  nn::Linear &key, &value, &query, &output;
  const int64_t heads;
  const double dropout;
};

// residual + W₂ activation(W₁ x)
class WhisperFeedForward {
 public:
  WhisperFeedForward(const WhisperConfig& config, nn::Linear& up, nn::Linear& down);
  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual, bool training) const;

  nn::Linear &up, &down;
  const nn::Activation activation;
  const double activation_dropout, dropout;
};

// residual + dropout(layer(x))
at::Tensor add_output(const nn::Linear& layer, const at::Tensor& x, const at::Tensor& residual, double dropout,
                      bool training);
// Whether a layer is left out of this pass (LayerDrop, https://arxiv.org/abs/1909.11556).
bool is_dropped(double probability, bool training);

struct WhisperEncoded {
  at::Tensor last_hidden_state;           // [batch, frames, dim], after the last norm
  at::Tensor mask;                        // bool [batch, frames]: what is real; undefined: all
  std::vector<at::Tensor> hidden_states;  // after positions, each layer's output, the last one after the norm
  std::vector<at::Tensor> attentions;     // [batch, heads, frames, frames] per layer
};

// A layer of the encoder.
c10::intrusive_ptr<nn::EncoderLayer> make_whisper_layer(const ModuleOptions& options, const WhisperConfig& config);
// Checks features [batch, mels, steps] and their mask [batch, steps], which may be undefined.
void check_mel_features(const at::Tensor& features, const at::Tensor& mask, int64_t mels);
// Two convolutions of 3 steps, of which the second has a stride of 2, with GELU: features [batch, mels, steps] and mask
// bool [batch, steps] or undefined -> [batch, frames, dim].
at::Tensor convolved_mel(const nn::Conv1d& conv1, const nn::Conv1d& conv2, const at::Tensor& features,
                         const at::Tensor& mask);
// Sines in the first half of the dimensions, cosines in the second, float64 [length, dim].
at::Tensor sinusoids(int64_t length, int64_t dim, c10::Device device);

class WhisperEncoder : public Block, public nn::Checkpointing {
 public:
  WhisperEncoder(const ModuleOptions& options, const WhisperConfig& config);
  // features [batch, mels, steps], at most two steps for each position; mask [batch, steps], 1 for what is real, on the
  // left of the padding: a row's answer is then that of its real steps alone. Undefined: all is real.
  WhisperEncoded forward(const at::Tensor& features, const at::Tensor& mask, bool hidden_states = false,
                         bool attentions = false) const;

  const WhisperConfig config;

 private:
  nn::Conv1d &conv1, &conv2;
  Module& positions;
  ModuleList<nn::EncoderLayer>& layers;
  nn::LayerNorm& norm;
};

// An observer of the frames that some cross-attention heads attend to. With a row of ids for each row of audio.
struct WhisperWatcher {
  std::vector<std::vector<int64_t>> heads;          // of each layer
  std::function<void(const at::Tensor&)> on_layer;  // gets a layer's weights, [batch, chosen, time, frames]
};

struct WhisperDecoderInputs {
  at::Tensor ids;             // [batch, time]
  at::Tensor mask;            // [batch, past + time], 1 for real tokens; may be undefined
  at::Tensor positions;       // [batch or 1, time]; undefined: counted over the real tokens
  at::Tensor encoder_states;  // [batch, frames, dim]; may be undefined where encoder_cache has their keys and values
  at::Tensor encoder_mask;    // bool [batch, frames]; undefined: all are real
  nn::KvCache* cache = nullptr;
  nn::KvCache* encoder_cache = nullptr;  // an empty one is filled; its rows may have several rows of ids each
  const WhisperWatcher* watcher = nullptr;
};

struct WhisperDecoded {
  at::Tensor last_hidden_state;              // [batch, time, dim], after the last norm
  std::vector<at::Tensor> hidden_states;     // embeddings, each layer's output, the last one after the norm
  std::vector<at::Tensor> attentions;        // [batch, heads, time, past + time] per layer
  std::vector<at::Tensor> cross_attentions;  // [batch, heads, time, frames] per layer
};

class WhisperDecoderLayer;

class WhisperDecoder : public Block, public nn::Checkpointing {
 public:
  WhisperDecoder(const ModuleOptions& options, const WhisperConfig& config);
  WhisperDecoded forward(const WhisperDecoderInputs& inputs, bool hidden_states = false, bool attentions = false) const;
  // Puts the keys and values of every layer's cross-attention into an empty cache.
  void read_encoder(const at::Tensor& encoder_states, nn::KvCache& cache) const;

  const WhisperConfig config;
  nn::Embedding &words, &positions;
  ModuleList<WhisperDecoderLayer>& layers;
  nn::LayerNorm& norm;

 private:
  void check(const WhisperDecoderInputs& inputs) const;
};

class WhisperModel : public Module {
 public:
  WhisperModel(const ModuleOptions& options, const WhisperConfig& config);
  WhisperEncoder& encoder;
  WhisperDecoder& decoder;
};

class Whisper : public Module, public generation::Generative, public nn::TiedHead {
 public:
  Whisper(const ModuleOptions& options, const Config& config);

  Names names() const override { return {"proj_out", "model.decoder.embed_tokens"}; }
  const at::Tensor& tied_weight() const override;

  int64_t vocabulary_size() const override { return config.vocabulary; }
  std::unique_ptr<generation::CausalStepper> stepper(c10::intrusive_ptr<nn::KvCache> cache) const override;

  // With SpecAugment while training, where the configuration asks for it.
  WhisperEncoded encode(const at::Tensor& features, const at::Tensor& mask, bool hidden_states, bool attentions) const;
  at::Tensor logits(const at::Tensor& hidden) const;  // [..., dim] -> [..., vocabulary]
  // Mean cross-entropy of labels [batch, time] that are not -100.
  at::Tensor loss(const at::Tensor& hidden, const at::Tensor& labels) const;
  // What the decoder reads to write the labels: each token after the one before it.
  at::Tensor shifted(const at::Tensor& labels) const;

  const WhisperConfig config;
  WhisperModel& model;
  nn::Linear* const proj_out;  // null where it is tied to the embeddings: see TiedHead
};

}  // namespace voxtorch::models

// Conformer layers (Gulati et al. 2020, https://arxiv.org/abs/2005.08100) for SpeechEncoder, with the names of
// transformers' Wav2Vec2ConformerModel and Wav2Vec2BertModel (w2v-BERT 2.0).
#pragma once

#include "core/models/speech_encoder.h"

namespace voxtorch::models {

c10::intrusive_ptr<nn::EncoderLayer> make_conformer_layer(const ModuleOptions& options, const SpeechConfig& config);

// What the layers take as `relative`: sines of the distances time - 1 to 1 - time, [1, 2 * time - 1, dim]; or the
// cosines and sines of rotations, [2, time, 1, dim / heads / 2]; undefined for other kinds of positions.
class ConformerPositions : public Block {
 public:
  ConformerPositions(const ModuleOptions& options, const SpeechConfig& config);
  at::Tensor forward(int64_t time, const at::TensorOptions& like) const;

 private:
  const bool relative;
  const int64_t dim;
  const at::Tensor inverse;  // [dim / heads / 2], of rotations only
};

// Shortens time after the layers, with attention (add_adapter of w2v-BERT 2.0).
class ConformerAdapterLayer;
class ConformerAdapter : public Block {
 public:
  ConformerAdapter(const ModuleOptions& options, const SpeechConfig& config);
  // frames [batch, time, dim], mask bool [batch, time] or undefined -> [batch, shorter, output_dim]
  at::Tensor forward(const at::Tensor& frames, const at::Tensor& mask) const;

 private:
  nn::Linear* const projection;
  nn::LayerNorm* const norm;
  ModuleList<ConformerAdapterLayer>& layers;
  const int64_t kernel, stride;
  const double layer_drop;
};

}  // namespace voxtorch::models

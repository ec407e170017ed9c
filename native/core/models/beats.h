// BEATs (Chen et al. 2022, https://arxiv.org/abs/2212.09058) with the names of its published checkpoints: patches of a
// filter bank's image -> transformer with a gated bias of relative positions -> predictor of audio classes.
#pragma once

#include <optional>

#include "core/module.h"

namespace voxtorch::nn {
class LayerNorm;
class Linear;
}  // namespace voxtorch::nn

namespace voxtorch::models {

struct BeatsConfig {
  explicit BeatsConfig(const Config& config);

  int64_t patch, embed_dim;
  bool conv_bias;
  int64_t layers, dim, intermediate, heads;
  std::string activation;
  bool norm_first, deep_norm;
  double dropout, attention_dropout, activation_dropout, layer_drop, input_dropout;
  int64_t position_kernel, position_groups;
  bool relative_positions, gated;
  int64_t buckets, farthest;
  double gradient_decay;  // what each layer's input passes back of its gradient
  bool has_predictor;
  double predictor_dropout;
  int64_t classes;
};

struct BeatsInputs {
  at::Tensor fbank;  // [batch, frames, bands], normalized
  // Valid frames of each row; undefined: all. What is beyond takes no part in anything, and its outputs are 0.
  std::optional<std::vector<int64_t>> lengths;
  // In their place, the published way: bool [batch, n], true for padding, of which groups become patches. A patch is
  // padding where all of its group is, so a few patches of padding take part.
  at::Tensor padding_mask;
};

struct BeatsOutput {
  at::Tensor last_hidden_state;           // [batch, patches, dim], the bands of a block of time next to each other
  at::Tensor padding_mask;                // bool [batch, patches], true for padding; undefined where all are valid
  std::vector<at::Tensor> hidden_states;  // the first layer's input and each layer's output, where asked for
  std::vector<at::Tensor> attentions;     // [batch, heads, patches, patches] per layer, where asked for
};

class BeatsPatches;
class BeatsTransformer;

class Beats : public Module {
 public:
  Beats(const ModuleOptions& options, const Config& config);
  BeatsOutput forward(const BeatsInputs& inputs, bool hidden_states = false, bool attentions = false) const;
  // The mean over the valid patches of the predictor's output, [batch, classes].
  at::Tensor classify(const BeatsInputs& inputs) const;

  const BeatsConfig config;

 private:
  at::Tensor padding_of_patches(const BeatsInputs& inputs, int64_t patches) const;
  // Whether anything here learns: a frozen network drops nothing, whatever mode a larger one has put it in.
  bool learns() const;

  BeatsPatches& patch_embedding;
  nn::LayerNorm& layer_norm;
  nn::Linear* const post_extract_proj;  // null where embed_dim is the transformer's
  BeatsTransformer& encoder;
  nn::Linear* const predictor;  // null where the network was not fine-tuned
};

}  // namespace voxtorch::models

// CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020) with the names of transformers' CLIPModel, CLIPTextModel
// and CLIPVisionModel; and what LanguageBind (Zhu et al. 2023, https://arxiv.org/abs/2310.01852) adds to its vision
// encoder: images that are not square, several frames with attention over time, a class token for each frame, patches
// that are dropped in training.
#pragma once

#include "core/nn/checkpoint.h"
#include "core/nn/embedding.h"
#include "core/nn/functions.h"
#include "core/nn/linear.h"
#include "core/nn/norm.h"

namespace voxtorch::models {

// Configuration of the layers of both encoders.
struct ClipLayerConfig {
  ClipLayerConfig(const Config& config, int64_t dim, int64_t intermediate, int64_t layers, int64_t heads);
  int64_t dim, intermediate, layers, heads;
  double eps, attention_dropout, factor;
  std::string activation;
  int64_t frames = 0;         // that attention over time is for; 0: there is none
  bool temporal_mlp = false;  // a second feed-forward after the attention over time
};

struct ClipTextConfig {
  explicit ClipTextConfig(const Config& config);
  ClipLayerConfig layer;
  int64_t vocabulary, positions;
  int64_t end;  // the token whose state stands for the text; -1: the one with the highest id
};

struct ClipVisionConfig {
  explicit ClipVisionConfig(const Config& config);
  ClipLayerConfig layer;
  int64_t channels, height, width, patch;
  int64_t frames;
  double patch_dropout, range;
  bool tubes;  // patches are tubes of one frame, and each frame has a class token of its own
  int64_t rows() const { return height / patch; }
  int64_t columns() const { return width / patch; }
};

struct ClipOutput {
  at::Tensor last_hidden_state;           // text [batch, time, dim]; vision [batch * frames, patches + 1, dim]
  at::Tensor pooler_output;               // [batch, dim]
  at::Tensor frame_output;                // vision: [batch, frames, dim], whose mean the pooler output is
  std::vector<at::Tensor> hidden_states;  // what the layers are given and each layer's output, where asked for
  std::vector<at::Tensor> attentions;     // per layer [.., heads, time, time], where asked for; not those over time
};

class ClipEncoder;
class ClipTextEmbeddings;
class ClipVisionEmbeddings;

class ClipText : public Block {
 public:
  ClipText(const ModuleOptions& options, const Config& config);
  // ids [batch, time]; mask [batch, time], 1 for real tokens, or undefined; positions [batch or 1, time] or undefined
  ClipOutput forward(const at::Tensor& ids, const at::Tensor& mask, const at::Tensor& positions,
                     bool hidden_states = false, bool attentions = false) const;

  const ClipTextConfig config;

 private:
  ClipTextEmbeddings& embeddings;
  ClipEncoder& encoder;
  nn::LayerNorm& norm;
};

class ClipVision : public Block {
 public:
  ClipVision(const ModuleOptions& options, const Config& config);
  // [batch, channels, height, width] or, of frames, [batch, channels, frames, height, width]
  ClipOutput forward(const at::Tensor& pixels, bool hidden_states = false, bool attentions = false) const;

  const ClipVisionConfig config;

 private:
  at::Tensor drop_patches(const at::Tensor& x, int64_t frames) const;

  ClipVisionEmbeddings& embeddings;
  nn::LayerNorm& pre_norm;
  ClipEncoder& encoder;
  nn::LayerNorm& post_norm;
};

}  // namespace voxtorch::models

// What CLIP's and SigLIP's encoders have in common: patches of images and the layers.
#pragma once

#include <cmath>

#include "core/nn/checkpoint.h"
#include "core/nn/linear.h"

namespace voxtorch::models {

inline double root(int64_t size) { return 1 / std::sqrt(static_cast<double>(size)); }

inline int64_t positive(const Config& config, const char* key, int64_t fallback) {
  const int64_t value = config.integer(key, fallback);
  TORCH_CHECK(value > 0, key, " must be positive, got ", value);
  return value;
}

struct ClipLayerSizes {
  int64_t dim, intermediate, layers, heads;
};

// Configuration of the layers of an encoder.
struct ClipLayerConfig {
  ClipLayerConfig(const Config& config, const ClipLayerSizes& defaults);
  int64_t dim, intermediate, layers, heads;
  double eps, attention_dropout, factor;
  double in_std, out_std, up_std, down_std;  // of new weights: attention's inputs and output, feed-forward's layers
  std::string activation;
  std::string family = "CLIP";  // begins the names of the blocks
  int64_t frames = 0;           // that attention over time is for; 0: there is none
  bool temporal_mlp = false;    // a second feed-forward after the attention over time
};

struct ClipOutput {
  at::Tensor last_hidden_state;           // text [batch, time, dim]; vision [batch * frames, patches + 1, dim]
  at::Tensor pooler_output;               // [batch, dim]
  at::Tensor frame_output;                // vision: [batch, frames, dim], whose mean the pooler output is
  std::vector<at::Tensor> hidden_states;  // what the layers are given and each layer's output, where asked for
  std::vector<at::Tensor> attentions;     // per layer [.., heads, time, time], where asked for; not those over time
};

// bool [1, 1, time, time]: each query sees the keys up to its own
at::Tensor clip_causal_mask(int64_t time, c10::Device device);

class ClipMlp : public Block {
 public:
  ClipMlp(const ModuleOptions& options, const ClipLayerConfig& c);
  at::Tensor add(const at::Tensor& x, const at::Tensor& residual) const;  // the layers of x, + residual

 private:
  nn::Linear &up, &down;
  const nn::Activation activation;
};

class ClipLayer;

class ClipEncoder : public Block, public nn::Checkpointing {
 public:
  ClipEncoder(const ModuleOptions& options, const ClipLayerConfig& c);
  ClipOutput forward(at::Tensor x, const at::Tensor& mask, bool causal, bool hidden_states, bool attentions) const;

 private:
  ModuleList<ClipLayer>& layers;
};

// Images in patches that do not overlap, each times the weight [dim, channels, patch, patch], or of tubes [dim,
// channels, 1, patch, patch].
class ClipPatches : public Block {
 public:
  ClipPatches(const ModuleOptions& options, at::IntArrayRef shape, bool bias, double std);
  at::Tensor forward(
      const at::Tensor& pixels) const;  // [batch, channels, frames, height, width] -> [batch * frames, patches, dim]

  const at::Tensor weight, bias;

 private:
  const int64_t patch;
};

}  // namespace voxtorch::models

// A layer of Whisper's decoder, and what all layers of a pass have in common.
#pragma once

#include "core/models/whisper.h"

namespace voxtorch::models {

// What all layers of a pass have in common, but for the tensors that a gradient may go to.
struct WhisperPass {
  at::Tensor mask;          // bool [batch or 1, 1, time, past + time]; undefined: see `causal`
  bool causal = false;      // without a mask: each query sees the keys up to its own; else all
  at::Tensor encoder_mask;  // bool [batch, 1, 1, frames]
  nn::KvCache *cache = nullptr, *encoder_cache = nullptr;
  bool with_weights = false;
  const WhisperWatcher* watcher = nullptr;
};

struct WhisperLayered {
  at::Tensor output, weights, cross_weights;
};

class WhisperDecoderLayer : public Block {
 public:
  WhisperDecoderLayer(const ModuleOptions& options, const WhisperConfig& c, int64_t index)
      : Block("WhisperDecoderLayer", options),
        attention(*child<WhisperAttention>("self_attn", c.dim, c.decoder_heads, c.attention_dropout, c.std)),
        cross(*child<WhisperAttention>("encoder_attn", c.dim, c.decoder_heads, c.attention_dropout, c.std)),
        attention_norm(*child<nn::LayerNorm>("self_attn_layer_norm", c.dim, 1e-5)),
        cross_norm(*child<nn::LayerNorm>("encoder_attn_layer_norm", c.dim, 1e-5)),
        feed_forward(c, *child<nn::Linear>("fc1", c.dim, c.decoder_intermediate, true, c.std),
                     *child<nn::Linear>("fc2", c.decoder_intermediate, c.dim, true, c.std)),
        norm(*child<nn::LayerNorm>("final_layer_norm", c.dim, 1e-5)),
        index(static_cast<size_t>(index)),
        dropout(c.dropout) {}

  WhisperLayered forward(const at::Tensor& x, const at::Tensor& encoder_states, const WhisperPass& pass) const;

  WhisperAttention &attention, &cross;
  nn::LayerNorm &attention_norm, &cross_norm;
  const WhisperFeedForward feed_forward;
  nn::LayerNorm& norm;

 private:
  const size_t index;
  const double dropout;
};

}  // namespace voxtorch::models

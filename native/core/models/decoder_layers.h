// What a decoder language model is made of. The parts are seen from outside because decoder_lm_decode.cc joins, for one
// token of each row, what a pass does one by one.
#pragma once

#include "core/models/decoder_lm.h"
#include "core/nn/checkpoint.h"
#include "core/nn/rms_norm.h"
#include "core/nn/rotary.h"
#include "core/nn/segments.h"

namespace voxtorch::models {

// Which keys the queries of a pass see. They are the last `time` of all tokens, the past included.
struct Sight {
  int64_t first_key = 0;  // those before it are seen by none
  at::Tensor mask;        // bool [batch or 1, 1, time, keys from first_key]; undefined: see `causal`
  bool causal = false;    // without a mask: each query sees the keys up to its own; else all
  int64_t window = 0;     // where causal: the last so many of them; 0: all
};

// What all layers of a pass have in common.
struct Pass {
  nn::Rotation rotation;
  Sight full, windowed;
  std::optional<nn::Segments> segments;  // of packed rows, whose tokens then stand in one row
  nn::KvCache* cache = nullptr;
  bool with_weights = false;
  int64_t queries = 0;  // of the last tokens; 0: of all, else the sights are theirs
};

using Linears = c10::SmallVector<const nn::Linear*, 4>;

class DecoderAttention : public Block {
 public:
  DecoderAttention(const ModuleOptions& options, const DecoderLMConfig& c, int64_t index);
  nn::Attended forward(const at::Tensor& x, const Pass& pass) const;

  // Not turned yet: the query [batch, heads, queries, head_dim], key and value [batch, kv_heads, time, head_dim].
  struct Heads {
    at::Tensor query, key, value;
  };
  Heads project(const at::Tensor& x, int64_t queries) const;
  // One that makes all, or three.
  Linears inputs() const;

  const QkvLayout layout;
  nn::Linear *const fused, *const query, *const key, *const value;  // null: not in this layout
  nn::Linear& output;
  const int64_t heads, kv_heads;
  const size_t index;
  const bool windowed;
  const double dropout;
};

// SwiGLU (Shazeer 2020, https://arxiv.org/abs/2002.05202).
class DecoderMLP : public Block {
 public:
  DecoderMLP(const ModuleOptions& options, const DecoderLMConfig& c);
  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual) const;
  // One that makes gate and up, or two.
  Linears inputs() const;

  nn::Linear *const fused, *const gate, *const up;  // null: not in this layout
  nn::Linear& down;
  const nn::Activation activation;
};

class DecoderLayer : public Block {
 public:
  DecoderLayer(const ModuleOptions& options, const DecoderLMConfig& c, int64_t index);
  nn::Attended forward(const at::Tensor& x, const Pass& pass) const;

  // Of attention and feed-forward.
  Linears linears() const;
  bool hooked_anywhere() const;

  DecoderAttention& attention;
  DecoderMLP& mlp;
  nn::RmsNorm &attention_norm, &mlp_norm;
};

class DecoderModel : public Block, public nn::Checkpointing {
 public:
  DecoderModel(const ModuleOptions& options, const DecoderLMConfig& c);
  DecoderOutput forward(const DecoderLMInputs& inputs, bool hidden_states, bool attentions) const;
  at::Tensor embed(const at::Tensor& ids) const;  // [...] -> [..., dim]

  nn::Embedding& words;
  ModuleList<DecoderLayer>& layers;
  nn::RmsNorm& norm;
  const nn::Rotary rotary;
  const int64_t window;

  // Which tokens of a pass are real, where they stand, and how long the longest row is with them.
  struct Places {
    at::Tensor real;                // bool [batch, past + time]; undefined: all
    at::Tensor positions;           // int64 [batch or 1, time]
    std::optional<int64_t> length;  // always there where RoPE angles depend on it
  };
  Places places(const DecoderLMInputs& inputs) const;
  // Puts embeddings [batch, time, dim] and positions [batch or 1, time] into the cache's last layer, where it has one.
  void keep_inputs(nn::KvCache& cache, const at::Tensor& x, const at::Tensor& positions) const;
  // Says which angles the tokens of a pass that is over have; `past`: tokens before it.
  void note_angles(nn::KvCache& cache, int64_t past, int64_t length) const;

 private:
  // `wanted`: of the last tokens; 0: of all.
  Pass prepare(const DecoderLMInputs& inputs, const Places& places, const at::Tensor& x, bool attentions,
               int64_t wanted = 0) const;
  Pass prepare_packed(const DecoderLMInputs& inputs, const at::Tensor& x, bool attentions) const;
  static nn::Attended again_later(DecoderLayer& layer, const at::Tensor& x, const Pass& pass);
};

}  // namespace voxtorch::models

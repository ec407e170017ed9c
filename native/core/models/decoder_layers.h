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

// RoPE angles of a pass.
struct Angles {
  nn::Rotation full;
  std::optional<nn::Rotation> windowed;  // of windowed layers, where those have a RoPE of their own
  at::Tensor query_scale = {};           // [batch or 1, 1, time, 1]; undefined: 1
};

// What all layers of a pass have in common.
struct Pass {
  Angles angles;
  Sight full, windowed;
  std::optional<nn::Segments> segments;  // of packed rows, whose tokens then stand in one row
  nn::KvCache* cache = nullptr;
  bool with_weights = false;
  int64_t queries = 0;       // of the last tokens; 0: of all, else the sights are theirs
  bool with_router = false;  // whether router logits are asked for
};

using Linears = c10::SmallVector<const nn::Linear*, 4>;

class DecoderAttention : public Block {
 public:
  DecoderAttention(const ModuleOptions& options, const DecoderLMConfig& c, int64_t index);
  nn::Attended forward(const at::Tensor& x, const Pass& pass) const;

  // The query [batch, heads, queries, head_dim], key and value [batch, kv_heads, time, head_dim]: after the norms, the
  // rotation and the scale of the query. `queries` as in Pass.
  struct Heads {
    at::Tensor query, key, value;
  };
  Heads project(const at::Tensor& x, int64_t queries, const Angles& angles) const;
  // One that makes all, or three.
  Linears inputs() const;

  const QkvLayout layout;
  nn::Linear *const fused, *const query, *const key, *const value;  // null: not in this layout
  nn::Linear& output;
  const QkNorm qk_norm;
  nn::RmsNorm *const query_norm, *const key_norm;  // null without
  const int64_t heads, kv_heads;
  const size_t index;
  const bool windowed, rotates;
  const double dropout, query_scale, cap;

 private:
  Heads split(const at::Tensor& x, int64_t queries) const;
};

// SwiGLU (Shazeer 2020, https://arxiv.org/abs/2002.05202).
class DecoderMLP : public Block {
 public:
  DecoderMLP(const ModuleOptions& options, const DecoderLMConfig& c, int64_t intermediate);
  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual) const;  // an undefined residual is 0
  // One that makes gate and up, or two.
  Linears inputs() const;

  nn::Linear *const fused, *const gate, *const up;  // null: not in this layout
  nn::Linear& down;
  const nn::Activation activation;
};

// A mixture of experts (Shazeer et al. 2017, https://arxiv.org/abs/1701.06538): each token goes through the experts to
// which the router gives the highest probabilities, and their outputs are added with these as weights. An expert
// without tokens computes nothing and gets no gradient.
class DecoderExperts : public Block {
 public:
  DecoderExperts(const ModuleOptions& options, const DecoderLMConfig& c);
  struct Routed {
    at::Tensor output;         // like x
    at::Tensor router_logits;  // [tokens, experts]
  };
  Routed forward(const at::Tensor& x, const at::Tensor& residual) const;  // an undefined residual is 0
  Linears linears() const;
  bool hooked_anywhere() const;

  nn::Linear& router;
  ModuleList<DecoderMLP>& experts;
  const int64_t per_token;
  const bool norm_weights;
};

class DecoderLayer : public Block {
 public:
  DecoderLayer(const ModuleOptions& options, const DecoderLMConfig& c, int64_t index);
  struct Output {
    at::Tensor stream, attention, router_logits;  // the last two only where the pass asks for them
  };
  Output forward(const at::Tensor& x, const Pass& pass) const;
  // What comes before attention, and what comes after it.
  at::Tensor before(const at::Tensor& x) const;
  DecoderExperts::Routed after(const at::Tensor& attended, const at::Tensor& residual) const;
  // What a part adds to the residual stream.
  at::Tensor branch(const at::Tensor& output, const nn::RmsNorm* norm) const;

  // Of attention and feed-forward.
  Linears linears() const;
  // Those that the family has.
  c10::SmallVector<const nn::RmsNorm*, 6> norms() const;
  bool hooked_anywhere() const;

  DecoderAttention& attention;
  // A layer has one of them; the other is null.
  DecoderMLP* const mlp;
  DecoderExperts* const experts;
  // Null where the family has none: of what attention and feed-forward read, and of what they add.
  nn::RmsNorm *const attention_norm, *const mlp_norm, *const attention_out_norm, *const mlp_out_norm;
  const double residual_scale;

 private:
  nn::RmsNorm* norm_named(const std::string& name, const DecoderLMConfig& c);
  DecoderExperts::Routed feed_forward(const at::Tensor& x, const at::Tensor& residual) const;
};

class DecoderModel : public Block, public nn::Checkpointing {
 public:
  DecoderModel(const ModuleOptions& options, const DecoderLMConfig& c);
  DecoderOutput forward(const DecoderLMInputs& inputs, bool hidden_states, bool attentions) const;
  at::Tensor embed(const at::Tensor& ids) const;          // [...] -> [..., dim]
  at::Tensor scaled(const at::Tensor& embeddings) const;  // by input_scale
  Angles angles(const nn::Rotation& full, const at::Tensor& positions, at::ScalarType dtype) const;

  nn::Embedding& words;
  ModuleList<DecoderLayer>& layers;
  nn::RmsNorm& norm;
  const nn::Rotary rotary;
  const std::unique_ptr<const nn::Rotary> local_rotary;  // of windowed layers; null: they have that of the others
  const int64_t window;
  const double embedding_scale, input_scale;
  const double position_scale_beta;
  const int64_t position_scale_length;

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
  static DecoderLayer::Output again_later(DecoderLayer& layer, const at::Tensor& x, const Pass& pass);
};

}  // namespace voxtorch::models

// The sizes of a decoder language model, and its family: which parts a layer has, how they are joined, and what its
// checkpoint calls them. lib/models/decoder/families.ts is the table of families; here are only its columns.
#pragma once

#include <string>
#include <vector>

#include "core/config.h"

namespace voxtorch::models {

// Of the children in a checkpoint. An empty name of a norm: the family has no norm there.
struct DecoderNames {
  std::string head, embeddings, embeddings_path;
  std::string attention, output, mlp, gate, up, down;
  std::string attention_norm, mlp_norm;          // of what attention and feed-forward read
  std::string attention_out_norm, mlp_out_norm;  // of what they add to the residual stream
};

// How query, key and value come out of a layer's attention: of three projections, or of one whose rows are all queries,
// then all keys, then all values (Phi-3), or for each group of heads its queries, its key and its value (InternLM2).
enum class QkvLayout { kApart, kInOrder, kByGroup };

// RMS norms of query and key before the rotation: of each head (Qwen3), or of all heads at once (OLMo 2).
enum class QkNorm { kNone, kHead, kProjection };

struct DecoderLMConfig {
  explicit DecoderLMConfig(const Config& config) : DecoderLMConfig(config, config.object("family")) {}

  const DecoderNames names;
  const QkvLayout qkv;
  const QkNorm qk_norm;
  const bool fused_gate;  // gate and up are one projection, the gate's rows first
  int64_t vocabulary, dim, layers, heads, kv_heads, head_dim, intermediate, positions, padding;
  int64_t window;  // keys that a query sees in a windowed layer, its own included; 0: all
  int64_t first_window_layer;
  double eps, std, attention_dropout;
  double norm_offset;  // added to the weight of every RMS norm

  double embedding_scale;  // of the embeddings of ids
  double input_scale;      // of all embeddings, those that a caller gives too
  double residual_scale;   // of what attention and feed-forward add to the residual stream
  double query_scale;      // of queries, whose scores are divided by sqrt(head_dim) too
  double attention_cap;    // scores become cap * tanh(score / cap); 0: they stay
  double logit_scale;      // of logits
  double logit_cap;        // as attention_cap
  int64_t experts;         // of a layer with a mixture of experts; 0: no layer has one
  int64_t experts_per_token;
  int64_t expert_intermediate;  // width of one expert
  bool norm_expert_weights;     // whether the weights of a token's experts are divided by their sum
  bool output_router_logits;    // whether the loss includes the router's, unless a call says otherwise
  double router_loss_scale;     // of the router's loss in the loss
  std::string activation;
  bool qkv_bias, output_bias, mlp_bias, tied;
  bool partial_rotary;  // whether RoPE may rotate only the first dimensions of a head
  Config rope;          // as nn::Rotary reads it
  // Queries are multiplied by 1 + beta * log(1 + floor(position / length)), as in Llama 4; beta 0: they are not.
  double position_scale_beta;
  int64_t position_scale_length;
  bool has_local_rope;
  Config local_rope;  // of windowed layers, where they have their own

  bool is_windowed(int64_t layer) const;
  bool rotates(int64_t layer) const;
  bool has_experts(int64_t layer) const;

 private:
  DecoderLMConfig(const Config& config, const Config& family);

  // A list says it of each layer, with 1 for yes; without one, every layer does whose number from 1 the period does not
  // divide (0: all do).
  struct Layers {
    std::vector<int64_t> list;
    int64_t period;
    bool has(int64_t layer) const;
  };
  static Layers layers_of(const Config& config, const Config& family, const std::string& name, int64_t count);

  const Layers windowed_, rotary_;
  const bool windows_skip_rotary_;
  const int64_t expert_period_;              // only layers whose number, from 1, it divides have experts
  const std::vector<int64_t> dense_layers_;  // and none of these, whose numbers are from 0
};

}  // namespace voxtorch::models

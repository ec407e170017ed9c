// The sizes of a decoder language model, what distinguishes its family, and what its checkpoint calls the parts.
#pragma once

#include <string>

#include "core/config.h"

namespace voxtorch::models {

struct DecoderNames {
  const char *head, *embeddings, *embeddings_path;
  const char *attention, *output, *attention_norm;
  const char *mlp, *gate, *up, *down, *mlp_norm;
};

// How query, key and value come out of a layer's attention: of three projections, or of one whose rows are all queries,
// then all keys, then all values (Phi-3), or for each group of heads its queries, its key and its value (InternLM2).
enum class QkvLayout { kApart, kInOrder, kByGroup };

struct DecoderLMConfig {
  explicit DecoderLMConfig(const Config& config);
  std::string type;  // llama, mistral, qwen2, phi3, internlm2
  const DecoderNames& names;
  QkvLayout qkv;
  bool fused_gate;  // gate and up are one projection, the gate's rows first
  int64_t vocabulary, dim, layers, heads, kv_heads, head_dim, intermediate, positions, padding;
  int64_t window, first_window_layer;  // keys that a query sees, its own included; 0: all
  double eps, std, attention_dropout;
  std::string activation;
  bool qkv_bias, output_bias, mlp_bias, tied;
  Config rope;
};

}  // namespace voxtorch::models

#include "core/models/decoder_lm_config.h"

#include <c10/util/Exception.h>

#include <algorithm>

namespace voxtorch::models {

namespace {

constexpr DecoderNames kNames = {
    "lm_head", "embed_tokens", "model.embed_tokens",      "self_attn", "o_proj", "input_layernorm", "mlp", "gate_proj",
    "up_proj", "down_proj",    "post_attention_layernorm"};
constexpr DecoderNames kInternLM2Names = {
    "output", "tok_embeddings", "model.tok_embeddings", "attention", "wo", "attention_norm", "feed_forward", "w1", "w3",
    "w2",     "ffn_norm"};

std::string type_of(const Config& config) {
  std::string type = config.text("model_type", "llama");
  TORCH_CHECK(type == "llama" || type == "mistral" || type == "qwen2" || type == "phi3" || type == "internlm2",
              "model_type must be llama, mistral, qwen2, phi3 or internlm2, got '", type, "'");
  return type;
}

QkvLayout layout_of(const std::string& type) {
  if (type == "phi3") return QkvLayout::kInOrder;
  return type == "internlm2" ? QkvLayout::kByGroup : QkvLayout::kApart;
}

}  // namespace

DecoderLMConfig::DecoderLMConfig(const Config& config)
    : type(type_of(config)),
      names(type == "internlm2" ? kInternLM2Names : kNames),
      qkv(layout_of(type)),
      fused_gate(type == "phi3"),
      vocabulary(config.integer("vocab_size", 32000)),
      dim(config.integer("hidden_size", 4096)),
      layers(config.integer("num_hidden_layers", 32)),
      heads(config.integer("num_attention_heads", 32)),
      kv_heads(config.integer("num_key_value_heads", heads)),
      head_dim(config.integer("head_dim", heads > 0 ? dim / heads : 0)),
      intermediate(config.integer("intermediate_size", 11008)),
      positions(config.integer("max_position_embeddings", 2048)),
      padding(std::max<int64_t>(config.integer("pad_token_id", -1), -1)),
      window(0),
      first_window_layer(0),
      eps(config.number("rms_norm_eps", 1e-6)),
      std(config.number("initializer_range", 0.02)),
      attention_dropout(config.number("attention_dropout", 0)),
      activation(config.text("hidden_act", "silu")),
      qkv_bias(type == "qwen2" || (type == "llama" && config.boolean("attention_bias", false)) ||
               (type == "internlm2" && config.boolean("bias", true))),
      output_bias(type != "qwen2" && qkv_bias),
      mlp_bias(type == "llama" && config.boolean("mlp_bias", false)),
      tied(config.boolean("tie_word_embeddings", false)),
      rope(config) {
  TORCH_CHECK(heads > 0 && (config.has("head_dim") || dim % heads == 0), "hidden_size ", dim,
              " is not divisible by num_attention_heads ", heads);
  TORCH_CHECK(kv_heads > 0 && heads % kv_heads == 0, "num_attention_heads ", heads,
              " is not divisible by num_key_value_heads ", kv_heads);
  TORCH_CHECK(padding < vocabulary, "pad_token_id ", padding, " is not below vocab_size ", vocabulary);
  if (type == "mistral" || type == "phi3" || (type == "qwen2" && config.boolean("use_sliding_window", false))) {
    window = config.integer("sliding_window", 0);
    TORCH_CHECK(window >= 0, "sliding_window must be above 0, got ", window);
    if (window > 0 && config.boolean("window_inclusive", false)) ++window;
  }
  if (type == "qwen2") first_window_layer = config.integer("max_window_layers", 28);
  if (type == "phi3") {
    for (const char* key : {"resid_pdrop", "embd_pdrop"}) {
      TORCH_CHECK(config.number(key, 0) == 0, key, " must be 0, as it is in every published Phi-3");
    }
    TORCH_CHECK(!config.boolean("attention_bias", false), "attention_bias must be false: Phi-3 has no biases");
  }
}

}  // namespace voxtorch::models

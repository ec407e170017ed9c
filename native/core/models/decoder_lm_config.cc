#include "core/models/decoder_lm_config.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

namespace voxtorch::models {

namespace {

DecoderNames names_of(const Config& family) {
  const Config names = family.object("names"), norms = family.object("norms");
  const std::string embeddings = names.text("embeddings", "embed_tokens");
  const bool has_norms = family.has("norms");
  const auto norm = [&](const char* key, const char* usual) { return norms.text(key, has_norms ? "" : usual); };
  return {names.text("head", "lm_head"),
          embeddings,
          "model." + embeddings,
          names.text("attention", "self_attn"),
          names.text("output", "o_proj"),
          names.text("mlp", "mlp"),
          names.text("gate", "gate_proj"),
          names.text("up", "up_proj"),
          names.text("down", "down_proj"),
          norm("attention", "input_layernorm"),
          norm("mlp", "post_attention_layernorm"),
          norm("attention_out", ""),
          norm("mlp_out", "")};
}

QkvLayout layout_of(const std::string& name) {
  if (name == "in_order") return QkvLayout::kInOrder;
  return name == "by_group" ? QkvLayout::kByGroup : QkvLayout::kApart;
}

QkNorm qk_norm_of(const std::string& name) {
  if (name == "head") return QkNorm::kHead;
  return name == "projection" ? QkNorm::kProjection : QkNorm::kNone;
}

double finite(const Config& family, const char* key, double usual) {
  const double value = family.number(key, usual);
  TORCH_CHECK(std::isfinite(value), "'", key, "' of the decoder's family must be finite, got ", value);
  return value;
}

// A constant of the family, or what the key that the family names says.
bool flag(const Config& config, const Config& family, const std::string& name) {
  return config.boolean(family.text(name + "_key", ""), family.boolean(name, false));
}

int64_t window_of(const Config& config, const Config& family) {
  if (!flag(config, family, "has_window")) return 0;
  const int64_t window = config.integer("sliding_window", 0);
  TORCH_CHECK(window >= 0, "sliding_window must be above 0, got ", window);
  return window > 0 && config.boolean("window_inclusive", false) ? window + 1 : window;
}

Config rope_of(const Config& config) {
  return config.object(config.has("rope_parameters") ? "rope_parameters" : "rope_scaling");
}

}  // namespace

DecoderLMConfig::DecoderLMConfig(const Config& config, const Config& family)
    : names(names_of(family)),
      qkv(layout_of(family.text("qkv", "apart"))),
      qk_norm(qk_norm_of(family.text("qk_norm", "none"))),
      fused_gate(family.boolean("fused_gate", false)),
      vocabulary(config.integer("vocab_size", 32000)),
      dim(config.integer("hidden_size", 4096)),
      layers(config.integer("num_hidden_layers", 32)),
      heads(config.integer("num_attention_heads", 32)),
      kv_heads(config.integer("num_key_value_heads", heads)),
      head_dim(config.integer("head_dim", heads > 0 ? dim / heads : 0)),
      intermediate(config.integer("intermediate_size", 11008)),
      positions(config.integer("max_position_embeddings", 2048)),
      padding(std::max<int64_t>(config.integer("pad_token_id", -1), -1)),
      window(window_of(config, family)),
      first_window_layer(config.integer(family.text("first_window_layer_key", ""), 0)),
      eps(config.number("rms_norm_eps", 1e-6)),
      std(config.number("initializer_range", 0.02)),
      attention_dropout(config.number("attention_dropout", 0)),
      norm_offset(finite(family, "norm_offset", 0)),
      embedding_scale(finite(family, "embedding_scale", 1)),
      input_scale(finite(family, "input_scale", 1)),
      residual_scale(finite(family, "residual_scale", 1)),
      query_scale(finite(family, "query_scale", 1)),
      attention_cap(finite(family, "attention_cap", 0)),
      logit_scale(finite(family, "logit_scale", 1)),
      logit_cap(finite(family, "logit_cap", 0)),
      experts(config.integer(family.text("experts_key", ""), 0)),
      experts_per_token(config.integer("num_experts_per_tok", 0)),
      expert_intermediate(config.integer(family.text("expert_size_key", "intermediate_size"), intermediate)),
      norm_expert_weights(flag(config, family, "norm_expert_weights")),
      output_router_logits(config.boolean("output_router_logits", false)),
      router_loss_scale(config.number("router_aux_loss_coef", 0)),
      activation(config.text(family.text("activation_key", "hidden_act"), "silu")),
      qkv_bias(flag(config, family, "qkv_bias")),
      output_bias(flag(config, family, "output_bias")),
      mlp_bias(flag(config, family, "mlp_bias")),
      tied(config.boolean("tie_word_embeddings", false)),
      partial_rotary(family.boolean("partial_rotary", false)),
      rope(config),
      position_scale_beta(
          family.boolean("has_position_scale", false) ? rope_of(config).number("llama_4_scaling_beta", 0) : 0),
      position_scale_length(rope_of(config).integer("original_max_position_embeddings", 0)),
      has_local_rope(family.has("local_rope")),
      local_rope(family.object("local_rope")),
      windowed_(layers_of(config, family, "windowed", layers)),
      rotary_(layers_of(config, family, "rotary", layers)),
      windows_skip_rotary_(family.boolean("windows_skip_rotary", false)),
      expert_period_(config.integer(family.text("expert_period_key", ""), 1)),
      dense_layers_(config.integers(family.text("dense_layers_key", ""), {})) {
  TORCH_CHECK(heads > 0 && (config.has("head_dim") || dim % heads == 0), "hidden_size ", dim,
              " is not divisible by num_attention_heads ", heads);
  TORCH_CHECK(kv_heads > 0 && heads % kv_heads == 0, "num_attention_heads ", heads,
              " is not divisible by num_key_value_heads ", kv_heads);
  TORCH_CHECK(padding < vocabulary, "pad_token_id ", padding, " is not below vocab_size ", vocabulary);
  TORCH_CHECK(qk_norm == QkNorm::kNone || qkv == QkvLayout::kApart,
              "norms of query and key need projections of their own");
  TORCH_CHECK(position_scale_beta == 0 || position_scale_length > 0,
              "llama_4_scaling_beta needs original_max_position_embeddings above 0, got ", position_scale_length);
  if (!family.has("experts_key")) return;
  TORCH_CHECK(experts > 0, family.text("experts_key", ""), " must be above 0, got ", experts);
  TORCH_CHECK(experts_per_token > 0 && experts_per_token <= experts, "num_experts_per_tok must be from 1 to ",
              family.text("experts_key", ""), ", ", experts, ", got ", experts_per_token);
  TORCH_CHECK(expert_intermediate > 0, family.text("expert_size_key", "intermediate_size"), " must be above 0, got ",
              expert_intermediate);
  TORCH_CHECK(expert_period_ > 0, family.text("expert_period_key", ""), " must be above 0, got ", expert_period_);
  for (const int64_t layer : dense_layers_) {
    TORCH_CHECK(layer >= 0 && layer < layers, family.text("dense_layers_key", ""),
                " must have numbers of layers from 0 to ", layers - 1, ", got ", layer);
  }
}

bool DecoderLMConfig::Layers::has(int64_t layer) const {
  if (!list.empty()) return list[static_cast<size_t>(layer)] != 0;
  return period == 0 || (layer + 1) % period != 0;
}

DecoderLMConfig::Layers DecoderLMConfig::layers_of(const Config& config, const Config& family, const std::string& name,
                                                   int64_t count) {
  const std::string list_key = family.text(name + "_layers_key", ""),
                    period_key = family.text(name + "_period_key", "");
  Layers layers{config.integers(list_key, family.integers(name + "_layers", {})),
                config.integer(period_key, family.integer(name + "_period", 0))};
  TORCH_CHECK(layers.list.empty() || static_cast<int64_t>(layers.list.size()) >= count, list_key, " must have ", count,
              " elements, one for each layer, got ", layers.list.size());
  TORCH_CHECK(period_key.empty() || layers.period > 0, period_key, " must be above 0, got ", layers.period);
  return layers;
}

bool DecoderLMConfig::is_windowed(int64_t layer) const {
  if (window == 0 || layer < first_window_layer) return false;
  return windows_skip_rotary_ && windowed_.list.empty() ? !rotates(layer) : windowed_.has(layer);
}

bool DecoderLMConfig::rotates(int64_t layer) const { return rotary_.has(layer); }

bool DecoderLMConfig::has_experts(int64_t layer) const {
  if (experts == 0 || (layer + 1) % expert_period_ != 0) return false;
  return std::find(dense_layers_.begin(), dense_layers_.end(), layer) == dense_layers_.end();
}

}  // namespace voxtorch::models

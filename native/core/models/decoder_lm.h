// The decoder language model of LLaMA (Touvron et al. 2023, https://arxiv.org/abs/2302.13971) and of the families that
// lib/models/decoder/families.ts describes, with the names of their published checkpoints.
#pragma once

#include "core/generation/stepper.h"
#include "core/models/decoder_lm_config.h"
#include "core/nn/embedding.h"
#include "core/nn/functions.h"
#include "core/nn/kv_cache.h"
#include "core/nn/tied_head.h"

namespace voxtorch::models {

struct DecoderLMInputs {
  at::Tensor ids;         // [batch, time]
  at::Tensor mask;        // [batch, past + time], 1 for real tokens; may be undefined
  at::Tensor positions;   // [batch or 1, time]; undefined: counted over the real tokens
  at::Tensor embeddings;  // [batch, time, dim], in place of ids
  nn::KvCache* cache = nullptr;
  // Of the sequences that stand one after the other in packed rows: positions and attention begin anew in each.
  std::optional<at::IntArrayRef> lengths = std::nullopt;
  // How many of the last tokens' hidden states are asked for; 0: all. Of the tokens before them the last layer makes
  // only keys and values, unless a hook or a gradient asks for more, and then all are given.
  int64_t wanted = 0;
  // Where RoPE angles depend on the length of the text:
  std::optional<int64_t> text_length = std::nullopt;  // of the text that these tokens are a part of; none: they end it
  bool is_prompt = false;      // the past, too, gets the angles of the whole text, as if all were read in one pass
  bool is_guess = false;       // each token gets the angles of the text that ends with it
  bool router_logits = false;  // whether those of the output are asked for
};

struct DecoderOutput {
  at::Tensor last_hidden_state;           // [batch, time, dim], after the last norm; time: see DecoderLMInputs::wanted
  std::vector<at::Tensor> hidden_states;  // embeddings, each layer's output, the last one after the norm
  std::vector<at::Tensor> attentions;     // [batch, heads, time, past + time] per layer
  std::vector<at::Tensor> router_logits;  // [batch * time, experts] per layer with experts
};

class DecoderModel;

class DecoderLM : public Module, public generation::Generative, public nn::TiedHead {
 public:
  DecoderLM(const ModuleOptions& options, const Config& config);

  // Rows of the embeddings, whose number JavaScript may change.
  int64_t vocabulary_size() const override;
  std::unique_ptr<generation::CausalStepper> stepper(c10::intrusive_ptr<nn::KvCache> cache) const override;

  std::unique_ptr<generation::TogetherReader> together() const override;
  // One pass of operators, for TogetherReader.
  at::Tensor read_together(const std::vector<generation::Piece>& pieces) const;
  int64_t token_bytes() const override;
  bool begins_with(const nn::KvCache& cache, int64_t length) const override;
  // Layers of its caches: where RoPE angles depend on the length of the text, one more, which holds the embeddings and
  // positions of the tokens, from which keys and values are computed again.
  int64_t cache_layers() const;

  DecoderOutput forward(const DecoderLMInputs& inputs, bool hidden_states = false, bool attentions = false) const;
  at::Tensor embed(const at::Tensor& ids) const;      // [...] -> [..., dim]
  at::Tensor logits(const at::Tensor& hidden) const;  // [..., dim] -> [..., vocabulary]
  at::Tensor scaled(const at::Tensor& hidden) const;  // what the head multiplies
  at::Tensor capped(const at::Tensor& logits) const;  // what becomes of its product
  // Cross-entropy of each token given those before it, where labels [batch, time] are not -100: the mean, the sum, or
  // with reduction 'none' each, [batch, time - 1]. The logits are divided by the temperature.
  at::Tensor loss(const at::Tensor& hidden, const at::Tensor& labels, double smoothing, std::string_view reduction,
                  double temperature) const;

  // The load-balancing loss of Switch Transformers (Fedus et al. 2021, https://arxiv.org/abs/2101.03961, equations 4 to
  // 6) over all layers at once, as transformers computes it: experts times the sum, over the experts, of the fraction
  // of tokens that chose the expert times its mean probability. Undefined without layers that have experts. `mask`
  // [batch, time]: 1 for the tokens that count; undefined: all do.
  at::Tensor router_loss(const std::vector<at::Tensor>& router_logits, const at::Tensor& mask) const;

  Names names() const override { return {config.names.head.c_str(), config.names.embeddings_path.c_str()}; }
  const at::Tensor& tied_weight() const override;

  // Before a pass over a cache, which is part of a text of `length` tokens: computes its keys and values again where
  // they have other angles than that text. `mask` as in DecoderLMInputs, undefined: no padding.
  void refresh(nn::KvCache& cache, const at::Tensor& mask, int64_t length, bool is_prompt) const;

  const DecoderLMConfig config;
  DecoderModel& model;
  nn::Linear* const lm_head;  // null where it is tied to the embeddings: see TiedHead
};

}  // namespace voxtorch::models

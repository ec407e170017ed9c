// RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692) with the names of transformers' RobertaModel and
// RobertaForMaskedLM.
#pragma once

#include "core/nn/embedding.h"
#include "core/nn/functions.h"
#include "core/nn/linear.h"
#include "core/nn/norm.h"

namespace voxtorch::models {

struct RobertaConfig {
  explicit RobertaConfig(const Config& config);
  int64_t vocabulary, dim, layers, heads, intermediate, positions, types, padding;
  double eps, std, dropout, attention_dropout;
  std::string activation;
  bool pooler;
};

struct RobertaInputs {
  at::Tensor ids;         // [batch, time]
  at::Tensor mask;        // [batch, time], 1 for real tokens; may be undefined
  at::Tensor types;       // [batch, time]; undefined: all 0
  at::Tensor positions;   // [batch, time]; undefined: counted from the ids
  at::Tensor embeddings;  // [batch, time, dim], in place of ids
};

struct RobertaOutput {
  at::Tensor last_hidden_state;           // [batch, time, dim]
  at::Tensor pooler_output;               // [batch, dim], undefined without a pooler
  std::vector<at::Tensor> hidden_states;  // embeddings and each layer's output, where asked for
  std::vector<at::Tensor> attentions;     // [batch, heads, time, time] per layer, where asked for
};

class RobertaEmbeddings;
class RobertaEncoder;
class RobertaPooler;

class Roberta : public Module {
 public:
  Roberta(const ModuleOptions& options, const Config& config);
  Roberta(const ModuleOptions& options, const RobertaConfig& config);
  RobertaOutput forward(const RobertaInputs& inputs, bool hidden_states = false, bool attentions = false) const;

  const RobertaConfig config;
  RobertaEmbeddings& embeddings;
  RobertaEncoder& encoder;
  RobertaPooler* const pooler;
};

}  // namespace voxtorch::models

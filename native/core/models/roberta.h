// RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692) with the names of transformers' RobertaModel and
// RobertaForMaskedLM; and BERT (Devlin et al. 2018, https://arxiv.org/abs/1810.04805), which counts its positions
// otherwise, as BertModel.
#pragma once

#include "core/nn/checkpoint.h"
#include "core/nn/embedding.h"
#include "core/nn/functions.h"
#include "core/nn/linear.h"
#include "core/nn/norm.h"
#include "core/nn/segments.h"

namespace voxtorch::models {

struct RobertaConfig {
  explicit RobertaConfig(const Config& config);
  int64_t vocabulary, dim, layers, heads, intermediate, positions, types, padding;
  double eps, std, dropout, attention_dropout;
  std::string activation;
  bool pooler;
  bool counts_padding = false;  // positions are 0, 1, 2, ... whatever the tokens are, as BERT's
  bool as_torch = false;        // first values of the layers as torch.nn.Linear has them, in place of std
};

struct RobertaInputs {
  at::Tensor ids;         // [batch, time]
  at::Tensor mask;        // [batch, time], 1 for real tokens, or bool [batch, 1 or heads, time, time]; may be undefined
  at::Tensor types;       // [batch, time]; undefined: all 0
  at::Tensor positions;   // [batch, time]; undefined: counted from the ids
  at::Tensor embeddings;  // [batch, time, dim], in place of ids
  // Computes nothing for padding where that saves work and the mask is on the CPU, and its states are then 0.
  bool skips_padding = false;
};

struct RobertaOutput {
  at::Tensor last_hidden_state;           // [batch, time, dim]
  at::Tensor pooler_output;               // [batch, dim], undefined without a pooler
  std::vector<at::Tensor> hidden_states;  // embeddings and each layer's output, where asked for
  std::vector<at::Tensor> attentions;     // [batch, heads, time, time] per layer, where asked for
};

class RobertaLayer;

// As many layers as the configuration says, under the names 0, 1, 2, ...
class RobertaLayers : public Module, public nn::Checkpointing {
 public:
  RobertaLayers(const ModuleOptions& options, const RobertaConfig& config);
  // x [batch, time, dim]; mask as nn::attend takes it. With segments x is [1, total, dim], and neither a mask nor
  // attentions are possible.
  RobertaOutput forward(at::Tensor x, const at::Tensor& mask, bool hidden_states, bool attentions,
                        const std::optional<nn::Segments>& segments = std::nullopt) const;

 private:
  std::vector<RobertaLayer*> layers;
};

class RobertaEmbeddings;
class RobertaEncoder;
class RobertaPooler;

class Roberta : public Block {
 public:
  Roberta(const ModuleOptions& options, const Config& config);
  Roberta(const ModuleOptions& options, const RobertaConfig& config);
  RobertaOutput forward(const RobertaInputs& inputs, bool hidden_states = false, bool attentions = false) const;
  // The same without the pooler.
  RobertaOutput encode(const RobertaInputs& inputs, bool hidden_states, bool attentions) const;
  at::Tensor embed_types(const at::Tensor& ids) const;  // [...] -> [..., dim]

  const RobertaConfig config;
  RobertaEmbeddings& embeddings;
  RobertaEncoder& encoder;
  RobertaPooler* const pooler;

 private:
  void check_pairs(const at::Tensor& mask, int64_t batch, int64_t time) const;
};

}  // namespace voxtorch::models

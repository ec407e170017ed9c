// The Q-Former (Li et al. 2023, https://arxiv.org/abs/2301.12597): a BERT whose learned queries read another network's
// frames by cross-attention, with the names that checkpoints of BLIP-2 and SALMONN have. At the level of windows, as
// SALMONN uses it (https://arxiv.org/abs/2310.13289), the queries read each window of the frames by themselves, all
// windows of a batch in one pass.
#pragma once

#include "core/block.h"
#include "core/nn/norm.h"

namespace voxtorch::nn {

struct QFormerConfig {
  explicit QFormerConfig(const Config& config);

  int64_t dim, layers, heads, intermediate;
  std::string activation;
  double dropout, attention_dropout, eps, std;
  int64_t encoder_dim, cross_frequency;  // of the frames; every how many layers there is a cross-attention
  int64_t queries;
  int64_t window, stride;  // in frames; a window of 0 is the whole sequence
  bool blip2 = false;      // the names of transformers' Blip2QFormerModel
};

// Which frames each window has.
struct QFormerWindows {
  int64_t count, window, stride;
  at::Tensor lengths;  // int64 [batch], the valid frames; undefined: all
};

class QFormerEmbeddings;
class QFormerEncoder;

// The layers without the queries.
class QFormerBert : public Block {
 public:
  QFormerBert(const ModuleOptions& options, const QFormerConfig& config);
  // queries [1 or batch, queries, dim], frames [batch, time, encoder_dim] -> [batch, windows, queries, dim]
  at::Tensor forward(const at::Tensor& queries, const at::Tensor& frames, const QFormerWindows& windows) const;

 private:
  const QFormerEmbeddings* const embeddings;  // of BLIP-2: null
  const LayerNorm* const norm;                // of BLIP-2
  QFormerEncoder& encoder;
  const double dropout;
};

class QFormer : public Block {
 public:
  QFormer(const ModuleOptions& options, const QFormerConfig& config);
  at::Tensor forward(const at::Tensor& queries, const at::Tensor& frames, const QFormerWindows& windows) const;

 private:
  QFormerBert& bert;
};

}  // namespace voxtorch::nn

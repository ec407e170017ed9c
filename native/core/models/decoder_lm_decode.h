// One token of each row through a decoder language model over a cache. On CUDA in eight launches a layer and, from the
// second token on, one for all of it: a captured graph, in which the device counts the tokens itself. On the CPU in one
// parallel region: see kernels::DecodeStep.
#pragma once

#include "core/kernels/decode_step/decode_step.h"
#include "core/kernels/few_rows/joined.h"
#include "core/models/decoder_layers.h"
#include "core/runtime/graphs.h"

namespace voxtorch::models {

class DecoderDecode {
 public:
  // `caches`: one of all rows, or one of each, of unlike lengths; several on the CPU only, without padding, and not
  // where RoPE angles depend on the length of a text.
  DecoderDecode(const DecoderLM& network, std::vector<nn::KvCache*> caches)
      : network_(network), caches_(std::move(caches)) {}
  const std::vector<nn::KvCache*>& caches() const { return caches_; }

  // ids int64 [rows] on the network's device -> logits [rows, vocabulary] of what follows, which the next call
  // overwrites. `mask`: bool [rows, all tokens that may come], undefined without padding; `shift`: int64 [rows, 1], the
  // position of a token less its column, at most `most_shift`. Undefined where something asks for a whole pass: a hook,
  // several adapters or one with a magnitude, dropout, autocast, a text so long that each further token changes the
  // angles of all, heads that the kernel does not take, experts; on the CPU also more rows than kernels::kMostStepRows,
  // on CUDA a cap on scores.
  at::Tensor logits(const at::Tensor& ids, const at::Tensor& mask, const at::Tensor& shift, int64_t most_shift);
  // The most likely token after each row alone, int64 [rows]; undefined too on CUDA, where a token's logits are
  // computed while the one before it is still on its way here.
  at::Tensor likeliest(const at::Tensor& ids, const at::Tensor& mask, const at::Tensor& shift, int64_t most_shift);

 private:
  struct Layer {
    const DecoderLayer* layer;
    std::vector<kernels::Projection> inputs, output, gates, down;  // query, key and value, or all in one; gate and up
    std::vector<at::Tensor> keys, values;  // of each cache, [rows, kv_heads, capacity, head_dim]
    int64_t window;                        // 0: none
    size_t table;                          // of tables_
  };
  // cos and sin of each place, [capacity, rotated / 2].
  struct Table {
    at::Tensor cos, sin;
  };
  // Addresses and versions of what a graph reads, and of what was copied for it: another one needs another graph.
  using Identity = std::vector<uintptr_t>;

  // Into `now_`, whose memory stays; false: a whole pass is asked for.
  bool identify(const at::Tensor& ids, const at::Tensor& mask, const at::Tensor& shift, int64_t length);
  // Whether what is prepared, or was now, takes the next token.
  bool ready(const at::Tensor& ids, const at::Tensor& mask, const at::Tensor& shift, int64_t most_shift);
  void prepare(const at::Tensor& ids, const at::Tensor& mask, const at::Tensor& shift, int64_t length);
  // Before the cache counts the token: what DecoderModel::keep_inputs keeps.
  void keep_inputs(const at::Tensor& ids, const at::Tensor& shift) const;
  int64_t length() const;  // of the longest cache
  at::Tensor compute();
  std::unique_ptr<kernels::DecodeStep> step(int workers) const;
  // The logits; with `only_likeliest` those tokens.
  at::Tensor run_step(const at::Tensor& ids, const at::Tensor& mask, const at::Tensor& shift, bool only_likeliest);
  at::Tensor product(const at::Tensor& x, const std::vector<kernels::Projection>& projections) const;
  at::Tensor with_normed_heads(const DecoderAttention& attention, const at::Tensor& qkv) const;
  kernels::Projection projection(const nn::Linear& linear);
  std::vector<kernels::Projection> projections(const Linears& linears);
  std::vector<kernels::Projection> gates(const DecoderMLP& mlp);

  const DecoderLM& network_;
  const std::vector<nn::KvCache*> caches_;
  Identity identity_, now_;                                          // empty: nothing is prepared
  std::vector<std::shared_ptr<const nn::ActiveAdapters>> adapters_;  // no others may get their addresses
  std::vector<Layer> layers_;
  std::vector<kernels::Projection> head_;
  at::Tensor ids_;       // int64 [rows]
  at::Tensor position_;  // int64 [1]: tokens in the cache before this one
  at::Tensor mask_, shift_;
  std::vector<Table> tables_;  // of all layers, of windowed ones, of those without RoPE; the last two where there are
  at::Tensor columns_;         // int64: where all queries, keys and values stand that a projection makes by group
  at::Tensor tickets_;         // see kernels::decode_attention
  int64_t counted_ = -1;       // what position_ is once all that was launched is done
  std::unique_ptr<Graph> graph_;
  at::Tensor graph_logits_;
  bool warm_ = false;  // one token has been computed without a graph
  bool captures_ = true;
  std::unique_ptr<kernels::DecodeStep> step_;  // on the CPU, where its kernels take the network
  at::Tensor step_logits_;
};

}  // namespace voxtorch::models

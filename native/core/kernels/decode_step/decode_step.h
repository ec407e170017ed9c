// One token of each row through all layers of a LLaMA-like decoder on the CPU, in one parallel region (team.h): norms,
// products, rotation, cache and attention in memory that is made once. Activations and sums are float32 whatever the
// weights are; the cache has the network's type.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "core/kernels/few_rows/joined.h"

namespace voxtorch::kernels {

// Rows that a step takes at most, and those with dense weights, of which others products are faster.
constexpr int64_t kMostStepRows = 32, kMostDenseStepRows = 8;

struct StepLayer {
  // Weights of the norms, float32, undefined where the layer has no such norm: [dim] before and after the attention and
  // feed-forward blocks, [head_dim] or [heads * head_dim] for query and key.
  at::Tensor attention_norm, mlp_norm, attention_out_norm, mlp_out_norm, query_norm, key_norm;
  std::vector<Projection> inputs, output, gates, down;  // query, key and value, or all in one; gate and up
  std::vector<at::Tensor> keys, values;                 // of each row, [kv_heads, capacity of the row, head_dim]
  int64_t window;                                       // 0: none
  // float32 [largest capacity, rotated / 2], of the first dimensions of a head, as many in all layers
  at::Tensor cos, sin;
};

struct StepNetwork {
  at::Tensor words;  // [vocabulary, dim]; undefined: the tokens' embeddings are given
  std::vector<StepLayer> layers;
  at::ScalarType type;  // float32, bfloat16 or float16, of all weights that are not in codes, and of the cache
  at::Tensor norm;      // as those of StepLayer
  Projection head;
  double eps;
  double embedding_scale = 1, residual_scale = 1;  // of the embeddings; of each block's output
  double attention_scale, attention_cap = 0;  // of scores, which become cap * tanh(score / cap) where there is a cap
  JoinedFunction function;                    // of the gates
  int64_t heads;
  bool by_group = false;  // whether `inputs` makes, for each key head, its queries, its key and its value
};

struct StepPlan;

class DecodeStep {
 public:
  // Null if the kernels do not support a weight, a layout or a number of rows. Weights and caches are kept alive,
  // and read where they are; biases, scales and adapters are copied.
  static std::unique_ptr<DecodeStep> make(const StepNetwork& network, int workers);

  // ids int64 [rows], or their embeddings, float32 [rows, dim]; the place of each row's token in its cache; mask, bool
  // [rows, largest place or more], and shift, int64 [rows], a position less its place: both undefined where nothing is
  // padded. -> logits float32 [rows, vocabulary].
  void run(const at::Tensor& ids, const at::Tensor& embedded, const std::vector<int64_t>& places,
           const at::Tensor& mask, const at::Tensor& shift, float* logits);
  // The same where the most likely word of each row is all that is asked for -> those [rows], with nothing of use in
  // `logits`. From the fifth time on the head is not read as a whole where HeadScreen takes it; before that, and where
  // it does not, nothing is returned and `logits` are what run() gives.
  std::vector<int64_t> likeliest(const at::Tensor& ids, const at::Tensor& embedded, const std::vector<int64_t>& places,
                                 const at::Tensor& mask, const at::Tensor& shift, float* logits);

 private:
  class Job;
  explicit DecodeStep(std::shared_ptr<Job> job) : job_(std::move(job)) {}

  const std::shared_ptr<Job> job_;  // a worker that comes too late may outlive the step with it
};

}  // namespace voxtorch::kernels

// One token of each row through Whisper's decoder: what the workers of a team compute of it, phase by phase.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "core/kernels/decode_step/team.h"
#include "core/kernels/few_rows/few_rows.h"
#include "core/kernels/layer_norm/args.h"
#include "core/kernels/query_attention/args.h"
#include "core/models/whisper_layers.h"

namespace voxtorch::models {

class WhisperDecodeJob final : public kernels::TeamJob {
 public:
  // What a job was prepared for: addresses and versions. Another one needs another job.
  using Identity = std::vector<uintptr_t>;

  WhisperDecodeJob(const Whisper& network, Identity identity, nn::KvCache& cache, nn::KvCache& heard, int64_t rows);

  const Identity identity;

  // Where the token is that comes next; `clips`: which of the heard each row is about.
  void set(const int64_t* ids, const std::vector<int64_t>& clips, int64_t past, float* logits);

 protected:
  int64_t chunks(int number) const override;
  void begin(int worker, int number) override;
  void compute(int worker, int number, int64_t chunk) override;
  void commit(int worker, int number, int64_t chunk) override;

 private:
  struct Product {
    kernels::FewRows args;  // without inputs and outputs
    int64_t item;           // bytes of a weight
    int64_t width() const;  // outputs that are one chunk
    int64_t chunks() const { return (args.out + width() - 1) / width(); }
  };
  struct Norm {
    const float *weight, *bias;
    double eps;
  };
  // Keys and values of a layer, [batch, heads, places, head_dim], by elements.
  struct Memory {
    void *keys, *values;
    int64_t row, head, place;
  };
  struct Layer {
    Norm norm, cross_norm, mlp_norm;
    Product query, key, value, output, cross_query, cross_output, up, down;
    Memory own, heard;
  };
  enum Part { kOwn, kOutput, kCross, kCrossOutput, kUp, kDown, kParts };
  struct Phase {
    const Layer* layer;  // null: the head
    Part part;
  };
  // What one worker computes with.
  struct alignas(64) Desk {
    std::vector<float> normed, chunk, query, key, value, attended, scores;
    std::vector<float> prepared;  // the phase's input as integers
    const float* input = nullptr;
  };

  Phase phase(int number) const;
  const float* floats(const at::Tensor& tensor, double scale = 1);
  Product product(const nn::Linear& linear);
  Product head(const Whisper& network);
  Norm norm(const nn::LayerNorm& layer) { return {floats(layer.weight), floats(layer.bias), layer.eps}; }
  Memory memory(const std::pair<at::Tensor, at::Tensor>& both);
  void multiply(const Product& product, const Desk& desk, int64_t from, int64_t width, float* output) const;
  const Product& product_of(const Phase& now) const;

  const int64_t rows_, dim_, inner_, heads_, head_dim_, frames_;
  const kernels::FewRows::Weight type_;  // of what is not quantized, of keys and of values
  const kernels::StepKernels& kernels_ = VOXTORCH_BEST_BUILD(kernels::step_kernels);
  const kernels::FewRowsOutputs outputs_ = kernels::outputs_of();
  const kernels::LayerNormRows norm_rows_ = kernels::layer_norm_rows();
  const at::Tensor words_, positions_;
  std::vector<at::Storage> kept_;  // what pointers lead into
  std::vector<Layer> layers_;
  Norm norm_;
  Product head_;
  std::vector<Desk> desks_;
  std::vector<float> stream_, attended_, between_;  // [rows, dim or inner]
  // Of the token. A late worker may read that of the next one.
  std::atomic<int64_t> past_{0};
  std::unique_ptr<std::atomic<int64_t>[]> clip_of_;
  float* logits_ = nullptr;
};

}  // namespace voxtorch::models

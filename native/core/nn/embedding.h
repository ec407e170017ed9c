#pragma once

#include "core/block.h"
#include "core/nn/adapter.h"
#include "core/nn/quantized_linear.h"

namespace voxtorch::nn {

// weight [count, dim]; the row of `padding` starts as zeros and gets no gradient (-1: none).
class Embedding : public Block {
 public:
  Embedding(const ModuleOptions& options, int64_t count, int64_t dim, int64_t padding = -1, double std = 0.02);
  // [...] -> [..., dim], of a packed weight in `type`
  at::Tensor forward(const at::Tensor& ids, at::ScalarType type = at::kFloat) const;

  AdapterSlot* adapters() override { return &slot_; }
  // As that of Linear, in blocks.
  void quantize(std::optional<QuantizedWeight> weight);
  const std::optional<QuantizedWeight>& quantized() const { return quantized_; }

  const at::Tensor weight;
  const int64_t padding;

 private:
  AdapterSlot slot_;
  std::optional<QuantizedWeight> quantized_;
};

}  // namespace voxtorch::nn

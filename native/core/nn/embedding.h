#pragma once

#include "core/block.h"
#include "core/nn/adapter.h"

namespace voxtorch::nn {

// weight [count, dim]; the row of `padding` starts as zeros and gets no gradient (-1: none).
class Embedding : public Block {
 public:
  Embedding(const ModuleOptions& options, int64_t count, int64_t dim, int64_t padding = -1, double std = 0.02);
  at::Tensor forward(const at::Tensor& ids) const;  // [...] -> [..., dim]

  AdapterSlot* adapters() override { return &slot_; }

  const at::Tensor weight;
  const int64_t padding;

 private:
  AdapterSlot slot_;
};

}  // namespace voxtorch::nn

#pragma once

#include <utility>

#include "core/block.h"

namespace voxtorch::nn {

// Root mean square norm (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467) over the last dimension, times
// weight + offset, which begins as `initial`. Gemma's offset is 1.
class RmsNorm : public Block {
 public:
  RmsNorm(const ModuleOptions& options, int64_t dim, double eps, double offset = 0, double initial = 1);

  // Of input + residual, and that sum. An undefined residual is 0.
  std::pair<at::Tensor, at::Tensor> forward(const at::Tensor& input, const at::Tensor& residual = {}) const;

  // weight + offset; with an offset in float32 or wider, since bfloat16 would round the sum.
  at::Tensor factors() const;

  const at::Tensor weight;
  const double eps, offset;
};

}  // namespace voxtorch::nn

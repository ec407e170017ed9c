#pragma once

#include "core/block.h"

namespace voxtorch::nn {

// Over the last dimension.
class LayerNorm : public Block {
 public:
  LayerNorm(const ModuleOptions& options, int64_t dim, double eps);
  at::Tensor forward(const at::Tensor& input) const;

  const at::Tensor weight, bias;
  const double eps;
};

// Input [batch, channels, ...]; statistics over each group of channels and all that follows.
class GroupNorm : public Block {
 public:
  GroupNorm(const ModuleOptions& options, int64_t groups, int64_t channels, double eps = 1e-5);
  at::Tensor forward(const at::Tensor& input) const;

  const at::Tensor weight, bias;
  const int64_t groups;
  const double eps;
};

// Input [batch, channels, time]. Training normalizes with the statistics of the batch, and the running ones follow
// them.
class BatchNorm1d : public Block {
 public:
  BatchNorm1d(const ModuleOptions& options, int64_t channels);
  at::Tensor forward(const at::Tensor& input) const;

  const at::Tensor weight, bias, running_mean, running_var;
  const at::Tensor batches;  // int64 []
};

}  // namespace voxtorch::nn

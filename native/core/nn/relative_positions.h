// Attention's bias of relative positions (https://arxiv.org/abs/1910.10683) and the gate by which each query scales it
// (https://arxiv.org/abs/2106.16138), as WavLM and BEATs have them.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/nn/linear.h"

namespace voxtorch::nn {

// How distances fall into buckets: half of them are for keys that come later. In each half the first half has one
// bucket per distance, and the rest grow logarithmically up to `farthest`.
struct DistanceBuckets {
  int64_t count, farthest;

  // Throws where the numbers leave no room for either half.
  void check(const char* count_name, const char* farthest_name) const;
  // Of the distances key - query from 1 - time to time - 1, int64 [2 * time - 1].
  at::Tensor of(int64_t time, c10::Device device) const;
};

constexpr int64_t kGateWidth = 4;

// update * (reset * scale - 1) + 2 with update and reset the sigmoids of what `gates`, a Linear of 2 * kGateWidth,
// makes of x [batch, time, heads, dim], summed over kGateWidth; scale [1, heads, 1, 1]. The result is [batch, heads,
// time].
at::Tensor relative_gate(const at::Tensor& x, const Linear& gates, const at::Tensor& scale);

}  // namespace voxtorch::nn

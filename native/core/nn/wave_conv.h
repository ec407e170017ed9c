// Convolutions over samples as vocoders have them: padded, dilated, in groups or transposed, and with weight norm.
#pragma once

#include "core/block.h"

namespace voxtorch::nn {

struct WaveConvShape {
  int64_t in, out, kernel;
  int64_t stride = 1, padding = 0, dilation = 1, groups = 1;
  bool transposed = false;
  bool bias = true;
  // The weight is weight_g * weight_v / |weight_v|, over the first dimension, as torch.nn.utils.weight_norm has it
  // (Salimans and Kingma 2016, https://arxiv.org/abs/1602.07868).
  bool weight_norm = false;
  double std = 0;  // of the initial weight; 0: PyTorch's own
};

// weight [out, in / groups, kernel], transposed [in, out / groups, kernel]; bias [out].
class WaveConv1d : public Block {
 public:
  WaveConv1d(const ModuleOptions& options, const WaveConvShape& shape);
  at::Tensor forward(const at::Tensor& input) const;  // [batch, in, time] -> [batch, out, time']

 private:
  const WaveConvShape shape;
  const at::Tensor bias;                  // undefined without
  const at::Tensor weight;                // undefined with weight norm
  const at::Tensor direction, magnitude;  // weight_v and weight_g; undefined without
};

}  // namespace voxtorch::nn

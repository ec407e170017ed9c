#pragma once

#include "core/block.h"
#include "core/nn/adapter.h"
#include "core/nn/functions.h"
#include "core/nn/norm.h"

namespace voxtorch::nn {

struct Conv1dShape {
  int64_t in, out, kernel, stride = 1;
  bool bias = true;
  int64_t groups = 1;
  int64_t padding = 0;     // zeros on each side
  bool zero_bias = false;  // whether the bias starts at 0
  double std = 0;          // of the initial weight; 0: by the fan-in
};

// weight [out, in / groups, kernel], bias [out]. Only one without groups takes adapters.
class Conv1d : public Block {
 public:
  Conv1d(const ModuleOptions& options, const Conv1dShape& shape);
  at::Tensor forward(const at::Tensor& input) const;  // [batch, in, time] -> [batch, out, time']
  // The same with time first, [batch, time, in] -> [batch, time', out], and an activation where one is given: the
  // quicker way on the CPU. Without gradients, adapters, hooks, groups and padding.
  at::Tensor forward_frames(const at::Tensor& frames, const Activation* activation) const;
  // Of the gelu of its input, with time first too; only the input itself is kept for backward. Without adapters, hooks,
  // groups and padding.
  at::Tensor forward_of_gelu(const at::Tensor& frames) const;
  AdapterSlot* adapters() override { return groups == 1 ? &slot_ : nullptr; }
  bool altered() const { return hooked() || slot_.active() != nullptr; }

  const at::Tensor weight;
  const at::Tensor bias;  // undefined without
  const int64_t stride, groups, padding;

 private:
  AdapterSlot slot_;
};

struct Conv2dShape {
  int64_t in, out, kernel, stride = 1, groups = 1;
};

// weight [out, in / groups, kernel, kernel], bias [out]; (kernel - 1) / 2 zeros on each side.
class Conv2d : public Block {
 public:
  Conv2d(const ModuleOptions& options, const Conv2dShape& shape, double std);
  at::Tensor forward(const at::Tensor& input) const;  // [batch, in, height, width] -> [batch, out, height', width']

  const at::Tensor weight, bias;

 private:
  const Conv2dShape shape;
};

// norm(conv(input)) of a signal [batch, samples], where the norm has a group for each channel, in one pass over the
// output [batch, channels, time]. Mean and variance of each channel follow from those of the windows that the kernel
// sees, so the norm becomes part of the kernel. The result in itself is as exact as that of the two steps. With
// `frames` it is [batch, time, channels]. With `windows`, int64 [batch], the statistics are those of each row's first
// so many windows; the others are normalized by them too.
at::Tensor conv_channel_norm(const at::Tensor& signal, const Conv1d& conv, const GroupNorm& norm, bool frames = false,
                             const at::Tensor& windows = {});

// What NormedConv1d's parameters are called: as torch.nn.utils.parametrizations does, or the older weight_norm.
struct NormedConvNames {
  const char* direction = "parametrizations.weight.original1";
  const char* gain = "parametrizations.weight.original0";
};
constexpr NormedConvNames kWeightNormNames{"weight_v", "weight_g"};

// A grouped convolution over time, as wide as the input, whose weight is normalized (Salimans and Kingma 2016,
// https://arxiv.org/abs/1602.07868) for each tap by itself: weight[:, :, k] = gain[k] * direction[:, :, k] /
// |direction[:, :, k]|. Speech encoders take positions from it.
class NormedConv1d : public Block {
 public:
  NormedConv1d(const ModuleOptions& options, int64_t dim, int64_t kernel, int64_t groups,
               const NormedConvNames& names = {});
  at::Tensor weight() const;
  // [batch, dim, time] -> the same; with what weight() gave, which several inputs share.
  at::Tensor forward(const at::Tensor& input, const at::Tensor& weight) const;

 private:
  const at::Tensor bias;       // [dim]
  const at::Tensor direction;  // [dim, dim / groups, kernel]
  const at::Tensor gain;       // [1, 1, kernel]
  const int64_t kernel, groups;
};

}  // namespace voxtorch::nn

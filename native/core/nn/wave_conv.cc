#include "core/nn/wave_conv.h"

#include <ATen/ops/_weight_norm.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/conv_transpose1d.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <cmath>

namespace voxtorch::nn {
namespace {

std::vector<int64_t> weight_sizes(const WaveConvShape& s) {
  return s.transposed ? std::vector<int64_t>{s.in, s.out / s.groups, s.kernel}
                      : std::vector<int64_t>{s.out, s.in / s.groups, s.kernel};
}

// What each output is summed over.
double fan_in(const WaveConvShape& s) {
  const std::vector<int64_t> sizes = weight_sizes(s);
  return static_cast<double>(sizes[1] * s.kernel);
}

Init weight_init(const WaveConvShape& s) {
  return s.std > 0 ? init::normal(s.std) : init::uniform(std::sqrt(1 / fan_in(s)));
}

}  // namespace

WaveConv1d::WaveConv1d(const ModuleOptions& options, const WaveConvShape& s)
    : Block(s.transposed ? "WaveConvTranspose1d" : "WaveConv1d", options),
      shape(s),
      bias(s.bias ? parameter("bias", {s.out}, init::uniform(std::sqrt(1 / fan_in(s)))) : at::Tensor()),
      weight(s.weight_norm ? at::Tensor() : parameter("weight", weight_sizes(s), weight_init(s))),
      direction(s.weight_norm ? parameter("weight_v", weight_sizes(s), weight_init(s)) : at::Tensor()),
      magnitude(s.weight_norm ? parameter("weight_g", {weight_sizes(s)[0], 1, 1},
                                          [this](const at::Tensor& tensor) {
                                            tensor.copy_(at::linalg_vector_norm(direction, 2, {1, 2}, true));
                                          })
                              : at::Tensor()) {}

at::Tensor WaveConv1d::forward(const at::Tensor& input) const {
  const at::Tensor taps = shape.weight_norm ? at::_weight_norm(direction, magnitude, 0) : weight;
  const auto shift = bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
  if (shape.transposed) {
    return watched(
        input, at::conv_transpose1d(input, taps, shift, shape.stride, shape.padding, 0, shape.groups, shape.dilation));
  }
  return watched(input, at::conv1d(input, taps, shift, shape.stride, shape.padding, shape.dilation, shape.groups));
}

}  // namespace voxtorch::nn

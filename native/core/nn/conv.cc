#include "core/nn/conv.h"

#include <ATen/ops/_weight_norm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rsqrt.h>

#include <cmath>

#include "core/kernels/gelu_conv1d.h"

namespace voxtorch::nn {

namespace {

Init initial_bias(const Conv1dShape& shape) {
  if (shape.zero_bias) return init::zeros();
  return init::uniform(std::sqrt(static_cast<double>(shape.groups) / static_cast<double>(shape.in * shape.kernel)));
}

}  // namespace

Conv1d::Conv1d(const ModuleOptions& options, const Conv1dShape& shape)
    : Block("Conv1d", options),
      weight(parameter("weight", {shape.out, shape.in / shape.groups, shape.kernel},
                       shape.std > 0 ? init::normal(shape.std) : init::kaiming_normal())),
      bias(shape.bias ? parameter("bias", {shape.out}, initial_bias(shape)) : at::Tensor()),
      stride(shape.stride),
      groups(shape.groups),
      padding(shape.padding) {}

at::Tensor Conv1d::forward(const at::Tensor& input) const {
  const auto shift = bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
  if (const auto adapters = slot_.active()) {
    return watched(input,
                   adapted_conv1d(input, weight, shift, {.stride = stride, .padding = padding}, *adapters, training()));
  }
  return watched(input, at::conv1d(input, weight, shift, stride, padding, 1, groups));
}

at::Tensor Conv1d::forward_frames(const at::Tensor& frames, const Activation* activation) const {
  constexpr int64_t kMaxWindows = int64_t{1} << 26;  // elements: half a minute of speech in its largest layer
  const auto shift = bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
  const int64_t batch = frames.size(0), time = frames.size(1), in = frames.size(2), kernel = weight.size(2);
  const int64_t steps = (time - kernel) / stride + 1;
  if (frames.scalar_type() == at::kFloat && batch * steps * kernel * in <= kMaxWindows) {
    const at::Tensor windows =
        frames.contiguous().as_strided({batch, steps, kernel * in}, {time * in, stride * in, 1}).contiguous();
    const at::Tensor filters = weight.permute({0, 2, 1}).reshape({weight.size(0), kernel * in});
    if (activation == nullptr) return kernels::linear(windows, filters, shift);
    const at::Tensor fused = kernels::fused_linear(windows, filters, shift, activation->fused());
    return fused.defined() ? fused : (*activation)(kernels::linear(windows, filters, shift));
  }
  // As an image of one line, whose channels are the last in memory.
  at::Tensor output = at::conv2d(frames.transpose(1, 2).unsqueeze(2),
                                 weight.unsqueeze(2).contiguous(at::MemoryFormat::ChannelsLast), shift, {1, stride});
  output = output.squeeze(2).transpose(1, 2);
  return activation == nullptr ? output : (*activation)(std::move(output));
}

at::Tensor Conv1d::forward_of_gelu(const at::Tensor& frames) const {
  return kernels::gelu_conv1d(frames, weight, bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt, stride);
}

Conv2d::Conv2d(const ModuleOptions& options, const Conv2dShape& s, double std)
    : Block("Conv2d", options),
      weight(parameter("weight", {s.out, s.in / s.groups, s.kernel, s.kernel}, init::normal(std))),
      bias(parameter("bias", {s.out}, init::zeros())),
      shape(s) {}

at::Tensor Conv2d::forward(const at::Tensor& input) const {
  const int64_t padding = (shape.kernel - 1) / 2;
  return watched(
      input, at::conv2d(input, weight, bias, {shape.stride, shape.stride}, {padding, padding}, {1, 1}, shape.groups));
}

namespace {

// 1 for each row's first `counts` steps, [batch, 1, time].
at::Tensor first_steps(const at::Tensor& counts, int64_t time, at::ScalarType dtype) {
  return (at::arange(time, counts.options()) < counts.unsqueeze(1)).unsqueeze(1).to(dtype);
}

// A group norm with a group for each channel of [batch, channels, time], whose statistics are of the first steps only.
at::Tensor norm_of_first(const at::Tensor& input, const GroupNorm& norm, const at::Tensor& counts) {
  const at::Tensor kept = first_steps(counts, input.size(2), input.scalar_type());
  const at::Tensor count = counts.clamp_min(1).to(input.scalar_type()).view({-1, 1, 1});
  const at::Tensor centred = input - (input * kept).sum(2, true) / count;
  const at::Tensor variance = (centred * kept).square().sum(2, true) / count;
  return norm.watched(input,
                      centred * at::rsqrt(variance + norm.eps) * norm.weight.unsqueeze(1) + norm.bias.unsqueeze(1));
}

}  // namespace

at::Tensor conv_channel_norm(const at::Tensor& signal, const Conv1d& conv, const GroupNorm& norm, bool frames,
                             const at::Tensor& counts) {
  // An adapter is next to the kernel, not in it, and a hook wants to see each step.
  if (conv.altered() || norm.hooked()) {
    const at::Tensor convolved = conv.forward(signal.unsqueeze(1));
    const at::Tensor normed = counts.defined() ? norm_of_first(convolved, norm, counts) : norm.forward(convolved);
    return frames ? normed.transpose(1, 2) : normed;
  }
  const int64_t kernel = conv.weight.size(2);
  const at::Tensor windows = signal.unfold(1, kernel, conv.stride).transpose(1, 2);  // [batch, kernel, time]

  const at::Tensor exact = windows.to(at::kDouble);
  at::Tensor mean, centred, covariance;  // mean [batch, kernel, 1]
  if (counts.defined()) {
    const at::Tensor kept = first_steps(counts, exact.size(2), at::kDouble);
    const at::Tensor count = counts.clamp_min(1).to(at::kDouble).view({-1, 1, 1});
    mean = (exact * kept).sum(2, true) / count;
    centred = (exact - mean) * kept;
    covariance = at::matmul(centred, centred.transpose(1, 2)) / count;
  } else {
    mean = exact.mean(2, true);
    centred = exact - mean;
    covariance = at::matmul(centred, centred.transpose(1, 2)) / exact.size(2);
  }

  const at::Tensor taps = conv.weight.flatten(1).to(at::kDouble);                          // [channels, kernel]
  const at::Tensor variance = (at::matmul(taps, covariance) * taps).sum(-1).clamp_min(0);  // [batch, channels]
  const at::Tensor scale = norm.weight * at::rsqrt(variance + norm.eps);                   // [batch, channels]
  at::Tensor average = at::matmul(taps, mean).squeeze(-1);                                 // [batch, channels]
  at::Tensor shift = norm.bias - average * scale;
  // A bias of the convolution drops out of the norm; it stays in the graph, with a gradient of 0.
  if (conv.bias.defined()) shift = shift + (conv.bias - conv.bias) * scale;

  const at::Tensor filters = at::cat({taps * scale.unsqueeze(-1), shift.unsqueeze(-1)}, -1);  // [.., .., kernel + 1]
  const at::Tensor ones = at::ones({windows.size(0), 1, windows.size(2)}, windows.options());
  const at::Tensor seen = at::cat({windows, ones}, 1), taken = filters.to(signal.scalar_type());
  return frames ? at::matmul(seen.transpose(1, 2), taken.transpose(-1, -2)) : at::matmul(taken, seen);
}

namespace {
// Along the taps, which are the last dimension.
constexpr int64_t kTaps = 2;
at::Tensor norm_of_taps(const at::Tensor& direction) { return at::linalg_vector_norm(direction, 2, {0, 1}, true); }
}  // namespace

NormedConv1d::NormedConv1d(const ModuleOptions& options, int64_t dim, int64_t kernel, int64_t groups,
                           const NormedConvNames& names)
    : Block("NormedConv1d", options),
      bias(parameter("bias", {dim}, init::zeros())),
      direction(parameter(names.direction, {dim, dim / groups, kernel},
                          init::normal(2 * std::sqrt(1.0 / static_cast<double>(kernel * dim))))),
      gain(parameter(names.gain, {1, 1, kernel},
                     [this](const at::Tensor& tensor) { tensor.copy_(norm_of_taps(direction)); })),
      kernel(kernel),
      groups(groups) {}

at::Tensor NormedConv1d::weight() const { return at::_weight_norm(direction, gain, kTaps); }

at::Tensor NormedConv1d::forward(const at::Tensor& input, const at::Tensor& weight) const {
  const at::Tensor output = watched(input, at::conv1d(input, weight, bias, 1, kernel / 2, 1, groups));
  return output.narrow(2, 0, input.size(2));  // an even kernel gives one step more
}

}  // namespace voxtorch::nn

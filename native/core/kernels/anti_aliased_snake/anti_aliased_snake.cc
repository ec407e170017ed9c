// The anti-aliased periodic activation of BigVGAN (Lee et al. 2022, https://arxiv.org/abs/2206.04658) in one pass: the
// signal is doubled in rate by a low-pass filter, goes through x + magnitude * sin(frequency * x)^2 (Ziyin et al. 2020,
// https://arxiv.org/abs/2006.08195), and is halved again by another, so that what the sine adds above the signal's own
// band is not folded back into it.
//
//   up[n]     = 2 * sum over k of up_filter[k] * x[(n + 15 - k) / 2 - 5], where n + 15 - k is even
//   output[i] = sum over k of down_filter[k] * snake(up)[2 i + k - 5]
//
// for filters of 12 taps; places beyond the ends repeat the first and the last number, of the input and of the doubled
// signal. input [batch, channels, time]; frequency and magnitude [channels], of its dtype or float32 with half
// precision; filters of any floating dtype. Nothing of twice the length is ever held. Filters of another even length,
// and those that ask for a gradient, go through the same formula in plain operators. Gradients of any order: the first
// is fused, higher ones are plain operators.
#include "core/kernels/anti_aliased_snake/anti_aliased_snake.h"

#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/conv_transpose1d.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/replication_pad1d.h>
#include <ATen/ops/replication_pad1d_backward.h>
#include <torch/library.h>

#include <utility>
#include <vector>

#include "core/kernels/arguments.h"
#include "core/kernels/fused_operator.h"

namespace voxtorch::kernels {

using at::Tensor;

#define VOXTORCH_SNAKE_PARAMETERS                                                                 \
  const Tensor &input, const Tensor &frequency, const Tensor &magnitude, const Tensor &up_filter, \
      const Tensor &down_filter
#define VOXTORCH_SNAKE_ARGUMENTS input, frequency, magnitude, up_filter, down_filter

void check_snake(const char* op, VOXTORCH_SNAKE_PARAMETERS) {
  check_floating(op, "input", input);
  TORCH_CHECK(input.dim() == 3 && input.size(1) > 0 && input.size(2) > 0, op,
              ": input must have shape [batch, channels, time] with at least one channel and step, got ",
              input.sizes());
  for (const auto& [name, tensor] : {std::pair<const char*, const Tensor&>{"frequency", frequency},
                                     std::pair<const char*, const Tensor&>{"magnitude", magnitude}}) {
    check_device(op, name, tensor, "input", input);
    TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == input.size(1), op, ": ", name, " must have shape [",
                input.size(1), "], the channels of input ", input.sizes(), ", got ", tensor.sizes());
    check_dtype(op, name, tensor, "input", input, true);
  }
  for (const auto& [name, tensor] : {std::pair<const char*, const Tensor&>{"up_filter", up_filter},
                                     std::pair<const char*, const Tensor&>{"down_filter", down_filter}}) {
    check_device(op, name, tensor, "input", input);
    TORCH_CHECK(at::isFloatingType(tensor.scalar_type()) && tensor.numel() > 0 && tensor.numel() % 2 == 0, op, ": ",
                name, " must hold an even number of floating-point taps, got ", dtype_name(tensor), " ",
                tensor.sizes());
  }
}

SnakeHeld::SnakeHeld(const Tensor& given, const Tensor& frequency, const Tensor& magnitude, const Tensor& up,
                     const Tensor& down)
    : input(given.contiguous()) {
  const auto widened = [&](const Tensor& tensor) {
    return tensor.to(at::toOpMathType(given.scalar_type())).flatten().contiguous();
  };
  this->frequency = widened(frequency);
  this->magnitude = widened(magnitude);
  this->up = widened(up);
  this->down = widened(down);
}

SnakeInputs SnakeHeld::inputs() const {
  return {input.const_data_ptr(),
          frequency.const_data_ptr(),
          magnitude.const_data_ptr(),
          up.const_data_ptr(),
          down.const_data_ptr(),
          input.size(0) * input.size(1),
          input.size(1),
          input.size(2)};
}

namespace {

constexpr int64_t kRate = 2;  // of the doubled signal
constexpr int64_t kNone = 0;  // padding of the convolutions

// The steps in plain operators, in the dtype that computes.
struct Composed {
  Composed(VOXTORCH_SNAKE_PARAMETERS)
      : type(at::toOpMathType(input.scalar_type())),
        channels(input.size(1)),
        frequency(frequency.to(type).unsqueeze(-1)),
        magnitude(magnitude.to(type).unsqueeze(-1)),
        up_taps(taps(up_filter)),
        down_taps(taps(down_filter)),
        x(input.to(type)) {
    const int64_t taken = up_taps.size(2), pad = taken / 2 - 1;
    const Tensor raised =
        2 * at::conv_transpose1d(at::replication_pad1d(x, {pad, pad}), up_taps, {}, kRate, kNone, kNone, channels);
    doubled = raised.narrow(2, crop(), 2 * x.size(2));
  }

  // How much of the doubled signal is the padding's, on each side.
  int64_t crop() const { return 3 * (up_taps.size(2) / 2) - 3; }
  Tensor taps(const Tensor& filter) const { return filter.to(type).reshape({1, 1, -1}).expand({channels, 1, -1}); }
  std::vector<int64_t> down_padding() const { return {down_taps.size(2) / 2 - 1, down_taps.size(2) / 2}; }

  Tensor activated() const { return doubled + magnitude * (doubled * frequency).sin().square(); }
  Tensor output() const {
    return at::conv1d(at::replication_pad1d(activated(), down_padding()), down_taps, {}, kRate, kNone, 1, channels);
  }

  at::ScalarType type;
  int64_t channels;
  Tensor frequency, magnitude, up_taps, down_taps, x;
  Tensor doubled;  // [batch, channels, 2 * time]
};

Tensor composed_snake(VOXTORCH_SNAKE_PARAMETERS) {
  return Composed(VOXTORCH_SNAKE_ARGUMENTS).output().to(input.scalar_type());
}

// The backward in plain operators, which autograd can differentiate again.
SnakeGradients backward_formula(const Tensor& grad_output, VOXTORCH_SNAKE_PARAMETERS) {
  const Composed c(VOXTORCH_SNAKE_ARGUMENTS);
  const Tensor grad = grad_output.to(c.type);
  const Tensor padded = at::conv_transpose1d(grad, c.down_taps, {}, kRate, kNone, 1, c.channels);
  const Tensor grad_activated = at::replication_pad1d_backward(padded, c.doubled, c.down_padding());
  const Tensor angle = c.doubled * c.frequency;
  const Tensor turned = grad_activated * (2 * angle).sin() * c.magnitude;
  const Tensor grad_doubled = grad_activated + turned * c.frequency;
  const int64_t taken = c.up_taps.size(2), pad = taken / 2 - 1;
  const Tensor around = at::constant_pad_nd(grad_doubled, {c.crop(), c.crop()});
  const Tensor grad_padded = 2 * at::conv1d(around, c.up_taps, {}, kRate, kNone, 1, c.channels);
  return {at::replication_pad1d_backward(grad_padded, c.x, {pad, pad}).to(input.scalar_type()),
          (turned * c.doubled).sum({0, 2}).to(frequency.scalar_type()),
          (grad_activated * angle.sin().square()).sum({0, 2}).to(magnitude.scalar_type())};
}

struct Snake {
  using Signature = Tensor(VOXTORCH_SNAKE_PARAMETERS);
  using Output = Tensor;
  using Kept = Types<>;
  using Gradients = SnakeGradients;
  static constexpr const char* kForward = "voxtorch::anti_aliased_snake";
  static constexpr const char* kBackward = "voxtorch::anti_aliased_snake_backward";

  static SnakeGradients composed_backward(const Tensor& grad_output, VOXTORCH_SNAKE_PARAMETERS) {
    check_snake("anti_aliased_snake_backward", VOXTORCH_SNAKE_ARGUMENTS);
    return backward_formula(grad_output, VOXTORCH_SNAKE_ARGUMENTS);
  }
};
using SnakeOperator = FusedOperator<Snake>;

bool has_kernel(const Tensor& up_filter, const Tensor& down_filter) {
  return up_filter.numel() == kSnakeTaps && down_filter.numel() == kSnakeTaps;
}

Tensor forward_autograd(VOXTORCH_SNAKE_PARAMETERS) {
  if (!has_kernel(up_filter, down_filter) || any_requires_grad({&up_filter, &down_filter})) {
    check_snake("anti_aliased_snake", VOXTORCH_SNAKE_ARGUMENTS);
    return composed_snake(VOXTORCH_SNAKE_ARGUMENTS);
  }
  return SnakeOperator::with_autograd(VOXTORCH_SNAKE_ARGUMENTS);
}

SnakeGradients backward_autograd(const Tensor& grad_output, VOXTORCH_SNAKE_PARAMETERS) {
  if (!has_kernel(up_filter, down_filter)) return Snake::composed_backward(grad_output, VOXTORCH_SNAKE_ARGUMENTS);
  return SnakeOperator::backward_with_autograd(grad_output, VOXTORCH_SNAKE_ARGUMENTS);
}

Tensor forward_meta(VOXTORCH_SNAKE_PARAMETERS) {
  check_snake("anti_aliased_snake", VOXTORCH_SNAKE_ARGUMENTS);
  return at::empty_like(input, at::MemoryFormat::Contiguous);
}

SnakeGradients backward_meta(const Tensor& grad_output, VOXTORCH_SNAKE_PARAMETERS) {
  check_snake("anti_aliased_snake_backward", VOXTORCH_SNAKE_ARGUMENTS);
  return {at::empty_like(input, at::MemoryFormat::Contiguous), at::empty_like(frequency), at::empty_like(magnitude)};
}

}  // namespace

Tensor anti_aliased_snake(VOXTORCH_SNAKE_PARAMETERS) { return SnakeOperator::forward(VOXTORCH_SNAKE_ARGUMENTS); }

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "anti_aliased_snake(Tensor input, Tensor frequency, Tensor magnitude, Tensor up_filter, Tensor down_filter) -> "
      "Tensor");
  m.def(
      "anti_aliased_snake_backward(Tensor grad_output, Tensor input, Tensor frequency, Tensor magnitude, Tensor "
      "up_filter, Tensor down_filter) -> (Tensor grad_input, Tensor grad_frequency, Tensor grad_magnitude)");
}

VOXTORCH_META("anti_aliased_snake", forward_meta, "anti_aliased_snake_backward", backward_meta)
VOXTORCH_AUTOGRAD("anti_aliased_snake", forward_autograd, backward_autograd)

}  // namespace voxtorch::kernels

#include "core/kernels/gelu_conv1d.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <array>

#include "core/kernels/linear.h"
#include "core/runtime/recording.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

// A piece of one row: output steps [from, to), and the input frames [first, last) that they see.
struct Piece {
  int64_t row, from, to, first, last;
};

class Pieces {
 public:
  Pieces(const Tensor& input, const Tensor& weight, int64_t stride)
      : in(input.size(2)),
        kernel(weight.size(2)),
        stride(stride),
        steps((input.size(1) - kernel) / stride + 1),
        rows(input.size(0)),
        length_(std::max<int64_t>(1, kElements / (kernel * in))) {}

  template <typename Work>
  void each(Work work) const {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t from = 0; from < steps; from += length_) {
        const int64_t to = std::min(steps, from + length_);
        work(Piece{row, from, to, from * stride, (to - 1) * stride + kernel});
      }
    }
  }

  // gelu of what a piece sees, [steps, kernel * in].
  Tensor windows(const Tensor& input, const Piece& piece) const {
    const Tensor seen = at::gelu(input.select(0, piece.row).slice(0, piece.first, piece.last));
    return seen.as_strided({piece.to - piece.from, kernel * in}, {stride * in, 1}).contiguous();
  }

  const int64_t in, kernel, stride, steps, rows;

 private:
  static constexpr int64_t kElements = int64_t{1} << 21;  // of a piece's windows
  const int64_t length_;
};

Tensor filters_of(const Tensor& weight) { return weight.permute({0, 2, 1}).flatten(1); }  // [out, kernel * in]

struct GeluConv1d : torch::autograd::Function<GeluConv1d> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        int64_t stride) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({input, weight});
    ctx->saved_data["stride"] = stride;
    ctx->saved_data["bias"] = bias.has_value() && bias->defined() && bias->requires_grad();
    const Tensor frames = input.contiguous(), filters = filters_of(weight);
    const Pieces pieces(frames, weight, stride);
    Tensor output = at::empty({pieces.rows, pieces.steps, weight.size(0)}, frames.options());
    pieces.each([&](const Piece& piece) {
      output.select(0, piece.row)
          .slice(0, piece.from, piece.to)
          .copy_(linear(pieces.windows(frames, piece), filters, bias));
    });
    return output;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const int64_t stride = ctx->saved_data["stride"].toInt();
    const bool of_bias = ctx->saved_data["bias"].toBool();
    variable_list result = at::GradMode::is_enabled() ? in_parts(saved[0], saved[1], grads[0], stride)
                                                      : in_pieces(saved[0], saved[1], grads[0], stride);
    return {result[0], result[1], of_bias ? grads[0].sum({0, 1}) : Tensor(), Tensor()};
  }

 private:
  static variable_list in_pieces(const Tensor& input, const Tensor& weight, const Tensor& grads, int64_t stride) {
    const Tensor frames = input.contiguous(), grad = grads.contiguous(), filters = filters_of(weight);
    const Pieces pieces(frames, weight, stride);
    Tensor grad_input = input.requires_grad() ? at::zeros_like(frames) : Tensor();
    Tensor grad_filters = weight.requires_grad() ? at::zeros_like(filters) : Tensor();
    pieces.each([&](const Piece& piece) {
      const Tensor given = grad.select(0, piece.row).slice(0, piece.from, piece.to);  // [steps, out]
      if (grad_filters.defined()) grad_filters.addmm_(given.t(), pieces.windows(frames, piece));
      if (!grad_input.defined()) return;
      const Tensor windows = linear_input_gradient(given, filters).unflatten(1, {pieces.kernel, pieces.in});
      Tensor seen = at::zeros({piece.last - piece.first, pieces.in}, frames.options());
      for (int64_t tap = 0; tap < pieces.kernel; ++tap) {
        seen.slice(0, tap, tap + (piece.to - piece.from - 1) * stride + 1, stride).add_(windows.select(1, tap));
      }
      const Tensor before = frames.select(0, piece.row).slice(0, piece.first, piece.last);
      grad_input.select(0, piece.row).slice(0, piece.first, piece.last).add_(at::gelu_backward(seen, before));
    });
    if (grad_filters.defined()) {
      grad_filters = grad_filters.unflatten(1, {pieces.kernel, pieces.in}).permute({0, 2, 1}).contiguous();
    }
    return {grad_input, grad_filters};
  }

  // With operators that have gradients of their own.
  static variable_list in_parts(const Tensor& input, const Tensor& weight, const Tensor& grads, int64_t stride) {
    const Tensor activated = at::gelu(input).transpose(1, 2);
    const auto [of_activated, of_weight, of_bias] =
        at::convolution_backward(grads.transpose(1, 2), activated, weight, std::nullopt, {stride}, {0}, {1}, false, {0},
                                 1, std::array<bool, 3>{input.requires_grad(), weight.requires_grad(), false});
    return {of_activated.defined() ? at::gelu_backward(of_activated.transpose(1, 2), input) : Tensor(), of_weight};
  }
};

}  // namespace

Tensor gelu_conv1d(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, int64_t stride) {
  TORCH_CHECK(input.dim() == 3 && weight.dim() == 3 && input.size(2) == weight.size(1) && stride > 0,
              "gelu_conv1d takes input [batch, time, in], weight [out, in, kernel] and a positive stride, got ",
              input.sizes(), ", ", weight.sizes(), " and ", stride);
  TORCH_CHECK(input.size(1) >= weight.size(2), "gelu_conv1d got ", input.size(1), " frames, fewer than its kernel of ",
              weight.size(2));
  TORCH_CHECK(!bias.has_value() || !bias->defined() || (bias->dim() == 1 && bias->size(0) == weight.size(0)),
              "gelu_conv1d's bias must have the size of the output, ", weight.size(0));
  if (input.is_cpu() && weight.is_cpu() && input.layout() == at::kStrided &&
      input.scalar_type() == weight.scalar_type()) {
    const RecordsForward recorded;
    return GeluConv1d::apply(input, weight, bias, stride);
  }
  return at::conv1d(at::gelu(input).transpose(1, 2), weight, bias, stride).transpose(1, 2);
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("gelu_conv1d(Tensor input, Tensor weight, Tensor? bias=None, *, int stride=1) -> Tensor", gelu_conv1d);
}

}  // namespace voxtorch::kernels

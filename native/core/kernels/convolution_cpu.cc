// oneDNN 3.12, which libtorch 2.13 brings, computes some half-precision convolutions wrongly on processors with AMX:
// those of an even number of channels below 16 in each group and a kernel that spans 64 values or more of a row come
// out as noise, without an error, in Python too. (It packs the weights of those channels in an order of its own; the
// gradient by the input of a transposed convolution is such a convolution.) Here they are computed in float32, which
// is what AVX-512 and older processors give, rounded once. So are those of a dtype that the processor has no products
// of, which ATen's own loops compute many times slower. Everything else goes where it went.

#include <ATen/ops/convolution_backward_compositeexplicitautograd_dispatch.h>
#include <ATen/ops/convolution_compositeexplicitautograd_dispatch.h>
#include <torch/library.h>

#include <array>
#include <tuple>

#include "core/kernels/expanded_linear.h"

namespace voxtorch::kernels {
namespace {

using at::IntArrayRef;
using at::Tensor;
using Gradients = std::tuple<Tensor, Tensor, Tensor>;

bool has_amx() {
#if defined(__x86_64__)
  static const bool amx = __builtin_cpu_supports("amx-tile");
  return amx;
#else
  return false;
#endif
}

// weight [out, in of a group, ..., width]; of a transposed convolution [in, out of a group, ..., width].
bool miscomputed(const Tensor& input, const Tensor& weight) {
  if (!at::isReducedFloatingType(input.scalar_type()) || weight.dim() < 3 || !has_amx()) return false;
  const int64_t channels = weight.size(1);
  return channels < 16 && channels % 2 == 0 && channels * weight.size(-1) >= 64;
}

Tensor convolution(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, IntArrayRef stride,
                   IntArrayRef padding, IntArrayRef dilation, bool transposed, IntArrayRef output_padding,
                   int64_t groups) {
  const auto run = [&](const Tensor& x, const Tensor& w, const std::optional<Tensor>& b) {
    return at::compositeexplicitautograd::convolution(x, w, b, stride, padding, dilation, transposed, output_padding,
                                                      groups);
  };
  // What does not fit is for PyTorch's own checks to refuse.
  const bool same =
      weight.scalar_type() == input.scalar_type() && (!bias || bias->scalar_type() == input.scalar_type());
  const bool wrong = !transposed && miscomputed(input, weight);
  if (!same || (!wrong && has_products(input.scalar_type()))) return run(input, weight, bias);
  const auto wide = [](const Tensor& x) { return x.to(at::kFloat); };
  return run(wide(input), wide(weight), bias ? std::optional(wide(*bias)) : std::nullopt).to(input.scalar_type());
}

Gradients convolution_backward(const Tensor& grad, const Tensor& input, const Tensor& weight,
                               at::OptionalIntArrayRef bias_sizes, IntArrayRef stride, IntArrayRef padding,
                               IntArrayRef dilation, bool transposed, IntArrayRef output_padding, int64_t groups,
                               std::array<bool, 3> wanted) {
  const auto run = [&](const Tensor& g, const Tensor& x, const Tensor& w) {
    return at::compositeexplicitautograd::convolution_backward(g, x, w, bias_sizes, stride, padding, dilation,
                                                               transposed, output_padding, groups, wanted);
  };
  const bool wrong = transposed && miscomputed(input, weight);
  if (weight.scalar_type() != input.scalar_type() || (!wrong && has_products(input.scalar_type())))
    return run(grad, input, weight);
  auto [x, w, b] = run(grad.to(at::kFloat), input.to(at::kFloat), weight.to(at::kFloat));
  const auto narrow = [&](const Tensor& one) { return one.defined() ? one.to(input.scalar_type()) : one; };
  return {narrow(x), narrow(w), narrow(b)};
}

TORCH_LIBRARY_IMPL(aten, CPU, m) {
  m.impl("convolution", convolution);
  m.impl("convolution_backward", convolution_backward);
}

}  // namespace
}  // namespace voxtorch::kernels

// Layer normalization (Ba, Kiros and Hinton 2016, https://arxiv.org/abs/1607.06450) as ATen's layer_norm, with a
// float32 forward on the CPU that takes about half the time of ATen's on one thread, and a bfloat16 one where no
// gradient is needed. All else is ATen's: other dtypes and devices, and the backward, to which this forward hands the
// mean and the reciprocal deviation of each row.
#include "core/kernels/layer_norm/layer_norm.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>

#include "core/kernels/layer_norm/args.h"
#include "core/kernels/plain.h"
#include "core/runtime/recording.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

constexpr int64_t kGrain = 16384;  // elements below which a second thread costs more than it saves

// Whether the fast forward may run; whatever is wrong with the arguments is left for ATen to say.
bool is_ours(const Tensor& input, at::IntArrayRef shape, const OptionalTensor& weight, const OptionalTensor& bias) {
  const c10::ScalarType dtype = input.scalar_type();
  if (dtype != at::kFloat && (dtype != at::kBFloat16 || RunsAgain::active())) return false;
  if (!is_plain(input, dtype) || !input.is_contiguous() || input.numel() == 0 || shape.empty() ||
      shape.size() > static_cast<size_t>(input.dim()))
    return false;
  if (!input.sizes().slice(input.dim() - shape.size()).equals(shape)) return false;
  for (const OptionalTensor* tensor : {&weight, &bias}) {
    if (tensor->has_value() && (*tensor)->defined() &&
        (!is_plain(**tensor, dtype) || !(*tensor)->is_contiguous() || !(*tensor)->sizes().equals(shape)))
      return false;
  }
  return true;
}

const void* data_or_null(const OptionalTensor& tensor) {
  return tensor.has_value() && tensor->defined() ? tensor->const_data_ptr() : nullptr;
}

struct Normed {
  Tensor output, mean, rstd;
};

Normed forward(const Tensor& input, at::IntArrayRef shape, const OptionalTensor& weight, const OptionalTensor& bias,
               double eps, bool with_stats) {
  int64_t dim = 1;
  for (const int64_t size : shape) dim *= size;
  const int64_t rows = input.numel() / dim;
  Normed result{at::empty_like(input, at::MemoryFormat::Contiguous), Tensor(), Tensor()};
  if (with_stats) {
    // The shape that native_layer_norm_backward expects.
    std::vector<int64_t> stats(input.sizes().begin(), input.sizes().end());
    std::fill(stats.end() - shape.size(), stats.end(), 1);
    result.mean = at::empty(stats, input.options());
    result.rstd = at::empty(stats, input.options());
  }
  const LayerNormForward args{input.const_data_ptr(),
                              data_or_null(weight),
                              data_or_null(bias),
                              result.output.mutable_data_ptr(),
                              input.scalar_type() == at::kBFloat16,
                              with_stats ? result.mean.mutable_data_ptr<float>() : nullptr,
                              with_stats ? result.rstd.mutable_data_ptr<float>() : nullptr,
                              dim,
                              eps};
  const LayerNormRows run = layer_norm_rows();
  at::parallel_for(0, rows, std::max<int64_t>(1, kGrain / dim),
                   [&](int64_t begin, int64_t end) { run(args, begin, end); });
  return result;
}

struct LayerNorm : torch::autograd::Function<LayerNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, at::IntArrayRef shape, const OptionalTensor& weight,
                        const OptionalTensor& bias, double eps) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const Normed normed = kernels::forward(input, shape, weight, bias, eps, true);
    ctx->save_for_backward({input, weight.value_or(Tensor()), bias.value_or(Tensor()), normed.mean, normed.rstd});
    ctx->saved_data["shape"] = shape.vec();
    return normed.output;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &input = saved[0], &weight = saved[1], &bias = saved[2];
    const std::vector<int64_t> shape = ctx->saved_data["shape"].toIntVector();
    const auto [grad_input, grad_weight, grad_bias] = at::native_layer_norm_backward(
        grads[0], input, shape, saved[3], saved[4], weight, bias,
        {input.requires_grad(), weight.defined() && weight.requires_grad(), bias.defined() && bias.requires_grad()});
    return {grad_input, Tensor(), grad_weight, grad_bias, Tensor()};
  }
};

}  // namespace

LayerNormRows layer_norm_rows() { return VOXTORCH_BEST_BUILD(layer_norm_rows); }

Tensor layer_norm(const Tensor& input, at::IntArrayRef normalized_shape, const OptionalTensor& weight,
                  const OptionalTensor& bias, double eps) {
  if (!is_ours(input, normalized_shape, weight, bias))
    return at::layer_norm(input, normalized_shape, weight, bias, eps);
  const auto needs = [](const OptionalTensor& tensor) {
    return tensor.has_value() && tensor->defined() && tensor->requires_grad();
  };
  if (at::GradMode::is_enabled() && (input.requires_grad() || needs(weight) || needs(bias))) {
    if (input.scalar_type() != at::kFloat) return at::layer_norm(input, normalized_shape, weight, bias, eps);
    return LayerNorm::apply(input, normalized_shape, weight, bias, eps);
  }
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return forward(input, normalized_shape, weight, bias, eps, false).output;
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "layer_norm(Tensor input, int[] normalized_shape, Tensor? weight=None, Tensor? bias=None, float eps=1e-05) -> "
      "Tensor",
      layer_norm);
}

}  // namespace voxtorch::kernels

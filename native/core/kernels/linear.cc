#include "core/kernels/linear.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_addmm_activation.h>
#include <ATen/ops/linear.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <string_view>
#include <vector>

#include "core/kernels/arguments.h"
#include "core/kernels/expanded_linear.h"
#include "core/kernels/few_rows/few_rows.h"
#include "core/kernels/float_product/float_product.h"
#include "core/kernels/packed_weights.h"
#include "core/kernels/plain.h"
#include "core/kernels/tile_linear/tile_linear.h"
#include "core/runtime/recording.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;

// Multiplications below which finding oneDNN's kernel costs more than it saves.
constexpr int64_t kSmall = 1 << 20;

// Operators that libtorch registers for its own compiler; absent in a build without oneDNN.
struct Pointwise {
  std::optional<c10::OperatorHandle> unary, add;
  static const Pointwise& instance() {
    static const Pointwise found = [] {
      auto& dispatcher = c10::Dispatcher::singleton();
      return Pointwise{dispatcher.findSchema({"mkldnn::_linear_pointwise", ""}),
                       dispatcher.findSchema({"mkldnn::_linear_pointwise", "binary"})};
    }();
    return found;
  }
};

// oneDNN has no bfloat16 products for processors before AVX-512: see expanded_linear.h.
bool multiplies(c10::ScalarType dtype) {
  return dtype == at::kFloat || (dtype == at::kBFloat16 && has_products(dtype));
}

// As packed_weight gives it, and not any tensor of four dimensions that a user passes.
bool is_packed(const Tensor& weight, const Tensor& input) {
  if (weight.scalar_type() != input.scalar_type()) return false;
  if (weight.layout() == at::kMkldnn) return true;
  return is_tiled(weight) && input.dim() > 0 && weight.scalar_type() == at::kBFloat16 && has_tiles() &&
         weight.is_contiguous() && weight.size(2) == kTileSide && weight.size(3) * 2 == kTileStep &&
         weight.size(1) * weight.size(3) == input.size(-1);
}

int64_t outputs_of(const Tensor& weight) { return is_tiled(weight) ? weight.size(0) * weight.size(2) : weight.size(0); }

// Whatever is wrong with the arguments is left for ATen to say.
bool is_ours(const Tensor& input, const Tensor& weight, const OptionalTensor& bias) {
  const c10::ScalarType dtype = input.scalar_type();
  if (!multiplies(dtype)) return false;
  if (!is_plain(input, dtype) || !input.is_contiguous()) return false;
  if (is_packed(weight, input)) return true;
  if (!is_plain(weight, dtype)) return false;
  if (weight.dim() != 2 || input.dim() < 2 || input.size(-1) != weight.size(1)) return false;
  if (!weight.is_contiguous() && !weight.t().is_contiguous()) return false;
  if (bias.has_value() && bias->defined() &&
      (!is_plain(*bias, dtype) || bias->dim() != 1 || bias->size(0) != weight.size(0)))
    return false;
  if (input.numel() * weight.size(0) < kSmall) return false;
  if (at::autocast::is_autocast_enabled(at::kCPU)) return false;
  return at::globalContext().userEnabledMkldnn() && Pointwise::instance().unary.has_value();
}

bool takes_few_rows(const Tensor& input, const Tensor& weight, const OptionalTensor& bias) {
  return input.scalar_type() == weight.scalar_type() && are_few_rows(input, weight) &&
         (!bias.has_value() || !bias->defined() ||
          (is_plain(*bias, input.scalar_type()) && bias->dim() == 1 && bias->size(0) == weight.size(0)));
}

Tensor defined_or_empty(const OptionalTensor& tensor) { return tensor.value_or(Tensor()); }

// Below autograd only.
Tensor product(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, FusedActivation activation = {}) {
  if (is_tiled(weight)) return tile_linear(input, weight, bias, activation, {});
  if (activation.attribute == nullptr && is_float_linear(input, weight)) return float_linear(input, weight, bias);
  const char* const attribute = activation.attribute == nullptr ? "none" : activation.attribute;
  torch::jit::Stack stack{input,
                          weight,
                          bias,
                          c10::IValue(std::string(attribute)),
                          c10::IValue(c10::impl::GenericList(c10::OptionalType::create(c10::NumberType::get()))),
                          c10::IValue(std::string(activation.algorithm))};
  Pointwise::instance().unary->callBoxed(stack);
  return std::move(stack.front()).toTensor();
}

struct Linear : torch::autograd::Function<Linear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& weight, const OptionalTensor& bias) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    ctx->save_for_backward({weight.requires_grad() ? input : Tensor(), input.requires_grad() ? weight : Tensor()});
    ctx->saved_data["bias"] = bias.has_value() && bias->defined() && bias->requires_grad();
    return is_expanded(input, weight, bias) ? expanded_linear(input, weight, bias) : product(input, weight, bias);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &input = saved[0], &weight = saved[1];
    const Tensor grad = grads[0].contiguous();
    const Tensor rows = grad.flatten(0, -2);
    const bool expanded = !has_products(grad.scalar_type()) && !any_requires_grad({&grad, &input, &weight});
    Tensor grad_input, grad_weight, grad_bias;
    if (weight.defined()) grad_input = linear_input_gradient(grad, weight);
    if (input.defined()) {
      grad_weight = expanded ? expanded_weight_gradient(grad, input) : rows.t().mm(input.flatten(0, -2));
    }
    if (ctx->saved_data["bias"].toBool()) grad_bias = rows.sum(0);
    return {grad_input, grad_weight, grad_bias};
  }
};

}  // namespace

Tensor linear(const Tensor& input, const Tensor& weight, const OptionalTensor& bias) {
  if (takes_few_rows(input, weight, bias)) return few_rows_linear(input, weight, bias);
  const bool expanded = is_expanded(input, weight, bias);
  if (!expanded && !is_ours(input, weight, bias)) return at::linear(input, weight, bias);
  const Tensor offset = defined_or_empty(bias);
  if (any_requires_grad({&input, &weight, &offset})) return Linear::apply(input, weight, bias);
  if (expanded) return expanded_linear(input, weight, bias);
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return product(input, weight, bias);
}

Tensor for_products(const Tensor& weight, const Tensor& input, const OptionalTensor& bias) {
  if (takes_few_rows(input, weight, bias)) return weight;
  if (weight.requires_grad() || !is_inference() || !is_ours(input, weight, bias)) return weight;
  if (is_float_linear(input, weight)) return weight;
  const Tensor packed = packed_weight(weight, input.numel() / input.size(-1));
  return packed.defined() ? packed : weight;
}

Tensor linear_input_gradient(const Tensor& grad, const Tensor& weight) {
  if (!any_requires_grad({&grad, &weight}) && is_expanded(grad, weight.t(), {}))
    return expanded_input_gradient(grad, weight);
  // A gradient of this gradient goes through ATen.
  if (grad.scalar_type() != at::kFloat || any_requires_grad({&grad, &weight}) || !is_ours(grad, weight.t(), {})) {
    return grad.matmul(weight);
  }
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return product(grad, weight.t(), {});
}

namespace {

// CUDA's product with an epilogue, which cublasLt adds to it: of the gelus it has the tanh form only.
Tensor with_epilogue(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                     FusedActivation activation) {
  const bool gelu = activation.algorithm == std::string_view("tanh");
  if (!gelu && activation.attribute != std::string_view("relu")) return {};
  const Tensor offset = defined_or_empty(bias);
  if (!offset.defined() || input.dim() < 2 || weight.dim() != 2 || offset.dim() != 1 || input.numel() == 0 ||
      input.size(-1) != weight.size(1) || offset.size(0) != weight.size(0) ||
      any_requires_grad({&input, &weight, &offset}) || at::autocast::is_autocast_enabled(at::kCUDA))
    return {};
  for (const Tensor* tensor : {&input, &weight, &offset}) {
    if (!tensor->is_cuda() || tensor->layout() != at::kStrided || tensor->scalar_type() != input.scalar_type() ||
        at::isTensorSubclassLike(*tensor) || tensor->_fw_grad(0).defined())
      return {};
  }
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes.back() = weight.size(0);
  return at::_addmm_activation(offset, input.flatten(0, -2), weight.t(), 1, 1, gelu).view(sizes);
}

}  // namespace

Tensor fused_linear(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, FusedActivation activation) {
  if (input.is_cuda() && activation.attribute != nullptr && !RunsAgain::active()) {
    return with_epilogue(input, weight, bias, activation);
  }
  const Tensor offset = defined_or_empty(bias);
  if (activation.attribute == nullptr || RunsAgain::active() || takes_few_rows(input, weight, bias) ||
      any_requires_grad({&input, &weight, &offset}) || !is_ours(input, weight, bias) || is_float_linear(input, weight))
    return {};
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return product(input, weight, bias, activation);
}

Tensor fused_linear_add(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, const Tensor& residual) {
  const Tensor offset = defined_or_empty(bias);
  if (RunsAgain::active() || takes_few_rows(input, weight, bias) ||
      any_requires_grad({&input, &weight, &offset, &residual}) || !is_ours(input, weight, bias) ||
      is_float_linear(input, weight))
    return {};
  if (!is_plain(residual, input.scalar_type()) || !residual.is_contiguous() || residual.dim() != input.dim() ||
      residual.size(-1) != outputs_of(weight) ||
      !residual.sizes().slice(0, residual.dim() - 1).equals(input.sizes().slice(0, input.dim() - 1)) ||
      !Pointwise::instance().add.has_value())
    return {};
  if (is_tiled(weight)) return tile_linear(input, weight, bias, {}, residual);
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  torch::jit::Stack stack{input, residual, weight, bias, c10::IValue(std::string("add"))};
  Pointwise::instance().add->callBoxed(stack);
  return std::move(stack.front()).toTensor();
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor", linear);
}

}  // namespace voxtorch::kernels

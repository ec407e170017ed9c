#include "core/nn/linear.h"

#include <ATen/autocast_mode.h>
#include <torch/library.h>

#include "core/kernels/linear.h"
#include "core/kernels/packed_weights.h"
#include "core/kernels/plain.h"
#include "core/kernels/tile_linear/tile_linear.h"
#include "core/runtime/recording.h"

namespace voxtorch::nn {

Linear::Linear(const ModuleOptions& options, int64_t in, int64_t out, bool with_bias, double std)
    : Block("Linear", options),
      weight(parameter("weight", {out, in}, init::normal(std))),
      bias(with_bias ? parameter("bias", {out}, init::zeros()) : at::Tensor()) {}

Linear::Linear(const ModuleOptions& options, int64_t in, int64_t out, Init weight, Init bias)
    : Block("Linear", options),
      weight(parameter("weight", {out, in}, std::move(weight))),
      bias(parameter("bias", {out}, std::move(bias))) {}

namespace {

std::optional<at::Tensor> optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

}  // namespace

at::Tensor Linear::forward(const at::Tensor& input) const { return watched(input, product(input)); }

at::Tensor Linear::product(const at::Tensor& input) const {
  if (quantized_) {
    if (at::Tensor result = int8_product(input); result.defined()) return result;
    const auto adapters = slot_.active();
    return adapters ? adapted_quantized_linear(input, *quantized_, optional(bias), *adapters, training())
                    : quantized_linear(input, *quantized_, optional(bias));
  }
  if (const auto adapters = slot_.active()) {
    return adapted_linear(input, weight, optional(bias), *adapters, training());
  }
  return kernels::linear(input, kernels::for_products(weight, input, optional(bias)), optional(bias));
}

at::Tensor Linear::int8_product(const at::Tensor& given, kernels::FusedActivation activation,
                                const at::Tensor& residual) const {
  if (!quantizes_inputs_ || !quantized_ || quantized_->codes.scalar_type() != at::kChar || hooked() ||
      slot_.active() != nullptr || !is_inference() || at::autocast::is_autocast_enabled(at::kCPU))
    return {};
  const at::Tensor& codes = quantized_->codes;
  const at::ScalarType type = given.scalar_type();
  if ((type != at::kFloat && type != at::kBFloat16) || !kernels::is_plain(given, type) || given.numel() == 0 ||
      given.size(-1) != codes.size(1) || !kernels::is_plain(codes, at::kChar) || !codes.is_contiguous() ||
      (bias.defined() && bias.scalar_type() != type) || !kernels::is_tile_activation(activation))
    return {};
  const at::Tensor input = given.contiguous();
  if (residual.defined() && (!kernels::is_plain(residual, type) || !residual.is_contiguous() ||
                             residual.numel() / codes.size(0) != input.numel() / codes.size(1)))
    return {};
  at::Tensor tiled = kernels::packed_weight(codes, 0, true);
  if (!tiled.defined()) tiled = kernels::tiled_weight(codes);
  if (!tiled.defined()) return {};
  return kernels::tile_linear_int8(input, tiled, quantized_->absmax.div(127), optional(bias), activation, residual);
}

at::Tensor Linear::forward(const at::Tensor& input, const Activation& activation) const {
  if (activation.fused().attribute != nullptr) {
    if (at::Tensor result = int8_product(input, activation.fused()); result.defined()) return result;
  }
  if (altered()) return activation(forward(input));
  const at::Tensor ready = kernels::for_products(weight, input, optional(bias));
  const at::Tensor fused = kernels::fused_linear(input, ready, optional(bias), activation.fused());
  return fused.defined() ? fused : activation(forward(input));
}

at::Tensor Linear::forward_add(const at::Tensor& input, const at::Tensor& residual) const {
  if (at::Tensor result = int8_product(input, {}, residual); result.defined()) return result;
  if (altered()) return forward(input) + residual;
  const at::Tensor ready = kernels::for_products(weight, input, optional(bias));
  const at::Tensor fused = kernels::fused_linear_add(input, ready, optional(bias), residual);
  return fused.defined() ? fused : forward(input) + residual;
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("module_quantize_inputs(__torch__.torch.classes.voxtorch.Module self, bool on=True) -> ()",
        [](const c10::intrusive_ptr<Module>& self, bool on) {
          auto* const linear = dynamic_cast<Linear*>(self.get());
          TORCH_CHECK(linear != nullptr, self->kind, " has no inputs to quantize; Linear has");
          linear->quantize_inputs(on);
        });
}

}  // namespace voxtorch::nn

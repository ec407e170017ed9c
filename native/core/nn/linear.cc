#include "core/nn/linear.h"

#include "core/kernels/linear.h"

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
    const auto adapters = slot_.active();
    return adapters ? adapted_quantized_linear(input, *quantized_, optional(bias), *adapters, training())
                    : quantized_linear(input, *quantized_, optional(bias));
  }
  if (const auto adapters = slot_.active()) {
    return adapted_linear(input, weight, optional(bias), *adapters, training());
  }
  return kernels::linear(input, kernels::for_products(weight, input, optional(bias)), optional(bias));
}

at::Tensor Linear::forward(const at::Tensor& input, const Activation& activation) const {
  if (altered()) return activation(forward(input));
  const at::Tensor ready = kernels::for_products(weight, input, optional(bias));
  const at::Tensor fused = kernels::fused_linear(input, ready, optional(bias), activation.fused());
  return fused.defined() ? fused : activation(forward(input));
}

at::Tensor Linear::forward_add(const at::Tensor& input, const at::Tensor& residual) const {
  if (altered()) return forward(input) + residual;
  const at::Tensor ready = kernels::for_products(weight, input, optional(bias));
  const at::Tensor fused = kernels::fused_linear_add(input, ready, optional(bias), residual);
  return fused.defined() ? fused : forward(input) + residual;
}

}  // namespace voxtorch::nn

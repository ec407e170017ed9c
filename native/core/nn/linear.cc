#include "core/nn/linear.h"

#include <ATen/ops/linear.h>

namespace voxtorch::nn {

Linear::Linear(const ModuleOptions& options, int64_t in, int64_t out, bool with_bias, double std)
    : Module("Linear", options),
      weight(parameter("weight", {out, in}, init::normal(std))),
      bias(with_bias ? parameter("bias", {out}, init::zeros()) : at::Tensor()) {}

Linear::Linear(const ModuleOptions& options, int64_t in, int64_t out, Init weight, Init bias)
    : Module("Linear", options),
      weight(parameter("weight", {out, in}, std::move(weight))),
      bias(parameter("bias", {out}, std::move(bias))) {}

at::Tensor Linear::forward(const at::Tensor& input) const {
  return at::linear(input, weight, bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt);
}

}  // namespace voxtorch::nn

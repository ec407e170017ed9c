#include "core/nn/rms_norm.h"

#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "core/kernels/rms_norm_residual/rms_norm_residual.h"

namespace voxtorch::nn {

RmsNorm::RmsNorm(const ModuleOptions& options, int64_t dim, double eps, double offset, double initial)
    : Block("RmsNorm", options),
      weight(parameter("weight", {dim}, init::constant(initial - offset))),
      eps(eps),
      offset(offset) {}

at::Tensor RmsNorm::factors() const {
  return offset == 0 ? weight : weight.to(at::toOpMathType(weight.scalar_type())) + offset;
}

std::pair<at::Tensor, at::Tensor> RmsNorm::forward(const at::Tensor& input, const at::Tensor& residual) const {
  using OptionalTensor = std::optional<at::Tensor>;
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("voxtorch::rms_norm_residual", "")
          .typed<kernels::TensorPair(const at::Tensor&, const OptionalTensor&, const OptionalTensor&, double)>();
  const auto run = [&](const at::Tensor& x, const OptionalTensor& added) {
    return op.call(x, added, OptionalTensor(factors()), eps);
  };
  if (offset == 0) {
    auto [output, sum] = run(input, residual.defined() ? OptionalTensor(residual) : std::nullopt);
    return {watched(sum, std::move(output)), sum};
  }
  const at::Tensor sum = residual.defined() ? input + residual : input;
  const at::Tensor output = std::get<0>(run(sum.to(at::toOpMathType(sum.scalar_type())), std::nullopt));
  return {watched(sum, output.to(sum.scalar_type())), sum};
}

}  // namespace voxtorch::nn

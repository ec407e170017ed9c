#include "core/nn/rms_norm.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include "core/kernels/rms_norm_residual/rms_norm_residual.h"

namespace voxtorch::nn {

RmsNorm::RmsNorm(const ModuleOptions& options, int64_t dim, double eps)
    : Block("RmsNorm", options), weight(parameter("weight", {dim}, init::ones())), eps(eps) {}

std::pair<at::Tensor, at::Tensor> RmsNorm::forward(const at::Tensor& input, const at::Tensor& residual) const {
  using OptionalTensor = std::optional<at::Tensor>;
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("voxtorch::rms_norm_residual", "")
          .typed<kernels::TensorPair(const at::Tensor&, const OptionalTensor&, const OptionalTensor&, double)>();
  auto [output, sum] =
      op.call(input, residual.defined() ? OptionalTensor(residual) : std::nullopt, OptionalTensor(weight), eps);
  return {watched(sum, std::move(output)), sum};
}

}  // namespace voxtorch::nn

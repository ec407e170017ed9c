#include "core/nn/norm.h"

#include <ATen/ops/group_norm.h>

#include "core/kernels/layer_norm/layer_norm.h"

namespace voxtorch::nn {

LayerNorm::LayerNorm(const ModuleOptions& options, int64_t dim, double eps)
    : Block("LayerNorm", options),
      weight(parameter("weight", {dim}, init::ones())),
      bias(parameter("bias", {dim}, init::zeros())),
      eps(eps) {}

at::Tensor LayerNorm::forward(const at::Tensor& input) const {
  return watched(input, kernels::layer_norm(input, weight.sizes(), weight, bias, eps));
}

GroupNorm::GroupNorm(const ModuleOptions& options, int64_t groups, int64_t channels, double eps)
    : Block("GroupNorm", options),
      weight(parameter("weight", {channels}, init::ones())),
      bias(parameter("bias", {channels}, init::zeros())),
      groups(groups),
      eps(eps) {}

at::Tensor GroupNorm::forward(const at::Tensor& input) const {
  return watched(input, at::group_norm(input, groups, weight, bias, eps));
}

}  // namespace voxtorch::nn

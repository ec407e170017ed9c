#include "core/nn/norm.h"

#include <ATen/ops/batch_norm.h>
#include <ATen/ops/group_norm.h>

#include "core/kernels/layer_norm/layer_norm.h"
#include "core/runtime/recording.h"

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

BatchNorm1d::BatchNorm1d(const ModuleOptions& options, int64_t channels)
    : Block("BatchNorm1d", options),
      weight(parameter("weight", {channels}, init::ones())),
      bias(parameter("bias", {channels}, init::zeros())),
      running_mean(buffer("running_mean", {channels}, options.dtype, init::zeros())),
      running_var(buffer("running_var", {channels}, options.dtype, init::ones())),
      batches(buffer("num_batches_tracked", {}, at::kLong, init::zeros())) {}

at::Tensor BatchNorm1d::forward(const at::Tensor& input) const {
  constexpr double kMomentum = 0.1, kEps = 1e-5;
  // A checkpointed layer runs twice, and updates the running statistics once.
  const bool updates = training() && !RunsAgain::active();
  if (updates) batches.add_(1);
  const auto running = [&](const at::Tensor& x) {
    return updates || !training() ? std::optional<at::Tensor>(x) : std::nullopt;
  };
  return watched(input, at::batch_norm(input, weight, bias, running(running_mean), running(running_var), training(),
                                       kMomentum, kEps, /*cudnn_enabled=*/true));
}

}  // namespace voxtorch::nn

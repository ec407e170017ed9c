// AdamW with 8-bit moments on CUDA: ATen's side of the launch.
#include <ATen/core/grad_mode.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/library.h>

#include <limits>
#include <map>
#include <utility>

#include "core/kernels/adamw_8bit/adamw_8bit.h"
#include "core/kernels/block_quantization.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

AdamType adam_type(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kBFloat16:
      return AdamType::kBFloat16;
    case at::kHalf:
      return AdamType::kFloat16;
    default:
      return AdamType::kFloat32;
  }
}

uint32_t blocks_of(const AdamState& state) {
  const int64_t blocks = (state.param.numel() + kAdamBlock - 1) / kAdamBlock;
  TORCH_CHECK(blocks < std::numeric_limits<int32_t>::max(), "adamw_8bit_step_: a parameter of shape ",
              state.param.sizes(), " is too large");
  return static_cast<uint32_t>(blocks);
}

// All parameters of one dtype on one device.
void step_together(const std::vector<AdamState>& states, const AdamRule& rule) {
  const c10::Device device = states.front().param.device();
  const c10::cuda::CUDAGuard guard(device);
  int multiprocessors = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device.index()));
  const Tensor with_sign = DynamicCodes::of(true).on(device), without = DynamicCodes::of(false).on(device);
  AdamLaunch args{rule.lr,
                  rule.beta1,
                  rule.beta2,
                  rule.maximize ? -1.0f : 1.0f,
                  static_cast<float>(1 - rule.lr * rule.weight_decay),
                  static_cast<float>(rule.beta1),
                  static_cast<float>(1 - rule.beta1),
                  static_cast<float>(rule.beta2),
                  static_cast<float>(1 - rule.beta2),
                  static_cast<float>(rule.eps),
                  0,
                  with_sign.const_data_ptr<float>(),
                  without.const_data_ptr<float>(),
                  {},
                  {}};
  const auto launch = [&] {
    if (args.tensors == 0) return;
    const auto error = launch_adamw_8bit(adam_type(states.front().param), args, multiprocessors,
                                         c10::cuda::getCurrentCUDAStream().stream());
    C10_CUDA_CHECK(static_cast<cudaError_t>(error));
    args.tensors = 0;
  };
  // Alive until the kernels are launched; what is not contiguous is copied there and back.
  std::vector<std::pair<Tensor, Tensor>> held;
  for (const AdamState& state : states) {
    const uint32_t blocks = blocks_of(state);
    if (blocks == 0) continue;
    if (args.tensors == kAdamTensors || args.begins[args.tensors] > std::numeric_limits<uint32_t>::max() - blocks)
      launch();
    held.emplace_back(state.param.contiguous(), state.grad.contiguous());
    args.tensor[args.tensors] = {held.back().first.mutable_data_ptr(),
                                 held.back().second.const_data_ptr(),
                                 state.first.mutable_data_ptr(),
                                 state.second.mutable_data_ptr(),
                                 state.packed() ? state.absmax1.mutable_data_ptr<float>() : nullptr,
                                 state.packed() ? state.absmax2.mutable_data_ptr<float>() : nullptr,
                                 state.step.const_data_ptr<float>(),
                                 state.param.numel()};
    args.begins[args.tensors + 1] = args.begins[args.tensors] + blocks;
    ++args.tensors;
  }
  launch();
  size_t next = 0;
  for (const AdamState& state : states) {
    if (state.param.numel() == 0) continue;
    const Tensor& param = held[next++].first;
    if (!param.is_same(state.param)) state.param.copy_(param);
  }
}

void adamw_8bit_step_cuda(at::TensorList params, at::TensorList grads, at::TensorList state1, at::TensorList state2,
                          at::TensorList absmax1, at::TensorList absmax2, at::TensorList steps, double lr, double beta1,
                          double beta2, double eps, double weight_decay, bool maximize) {
  const at::NoGradGuard no_grad;
  const AdamRule rule{lr, beta1, beta2, eps, weight_decay, maximize};
  std::map<std::pair<int, at::ScalarType>, std::vector<AdamState>> kinds;
  for (AdamState& state : adam_states(params, grads, state1, state2, absmax1, absmax2, steps, rule)) {
    // A parameter whose step count differs, or that is not on a GPU, is updated alone.
    const bool together = state.param.is_cuda() && state.step.device() == state.param.device();
    if (together)
      kinds[{state.param.device().index(), state.param.scalar_type()}].push_back(std::move(state));
    else
      adamw_8bit_alone(state, rule);
  }
  for (const auto& [kind, states] : kinds) step_together(states, rule);
}

}  // namespace

TORCH_LIBRARY_IMPL(voxtorch, CUDA, m) { m.impl("adamw_8bit_step_", adamw_8bit_step_cuda); }

}  // namespace voxtorch::kernels

// What the implementations of AdamW with 8-bit moments share on ATen's side.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "core/kernels/adamw_8bit/args.h"

namespace voxtorch::kernels {

struct AdamRule {
  double lr, beta1, beta2, eps, weight_decay;
  bool maximize;
};

// One parameter. absmax is not looked at where the moments are float32.
struct AdamState {
  at::Tensor param, grad, first, second, absmax1, absmax2, step;
  bool packed() const { return first.scalar_type() == at::kByte; }
};

// The lists of the operator as states. Throws a sentence about the first that does not fit.
std::vector<AdamState> adam_states(at::TensorList params, at::TensorList grads, at::TensorList state1,
                                   at::TensorList state2, at::TensorList absmax1, at::TensorList absmax2,
                                   at::TensorList steps, const AdamRule& rule);

// One parameter on the CPU, or in ATen's operators on any other device.
void adamw_8bit_alone(const AdamState& state, const AdamRule& rule);

}  // namespace voxtorch::kernels

#pragma once

#include "core/module.h"
#include "core/nn/adapter.h"
#include "core/nn/functions.h"

namespace voxtorch::nn {

// y = x Wᵀ + b: weight [out, in], bias [out]. Every projection of every network is one of these.
class Linear : public Module {
 public:
  Linear(const ModuleOptions& options, int64_t in, int64_t out, bool bias = true, double std = 0.02);
  Linear(const ModuleOptions& options, int64_t in, int64_t out, Init weight, Init bias);
  at::Tensor forward(const at::Tensor& input) const;  // [..., in] -> [..., out]
  at::Tensor forward(const at::Tensor& input, const Activation& activation) const;
  at::Tensor forward_add(const at::Tensor& input, const at::Tensor& residual) const;  // + residual [..., out]

  AdapterSlot* adapters() override { return &slot_; }
  bool adapted() const { return slot_.active() != nullptr; }

  const at::Tensor weight;
  const at::Tensor bias;  // undefined without

 private:
  AdapterSlot slot_;
};

}  // namespace voxtorch::nn

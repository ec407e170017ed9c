#pragma once

#include "core/block.h"
#include "core/nn/adapter.h"
#include "core/nn/functions.h"
#include "core/nn/quantized_linear.h"

namespace voxtorch::nn {

// y = x Wᵀ + b: weight [out, in], bias [out]. Every projection of every network is one of these.
class Linear : public Block {
 public:
  Linear(const ModuleOptions& options, int64_t in, int64_t out, bool bias = true, double std = 0.02);
  Linear(const ModuleOptions& options, int64_t in, int64_t out, Init weight, Init bias);
  at::Tensor forward(const at::Tensor& input) const;  // [..., in] -> [..., out]
  at::Tensor forward(const at::Tensor& input, const Activation& activation) const;
  at::Tensor forward_add(const at::Tensor& input, const at::Tensor& residual) const;  // + residual [..., out]

  AdapterSlot* adapters() override { return &slot_; }
  // A layer with adapters or a hook, or whose weight is in 4 or 8 bits, has no fused form.
  bool altered() const { return quantized_.has_value() || hooked() || slot_.active() != nullptr; }
  // The weight becomes the codes, and computes with them; null: it has become values again. Not while a pass runs:
  // the caller has changed the weight just before, which a queued pass would have refused.
  void quantize(std::optional<QuantizedWeight> weight) { quantized_ = std::move(weight); }
  const std::optional<QuantizedWeight>& quantized() const { return quantized_; }
  // Whether a weight in int8 is multiplied with inputs in int8 too, where no gradient is needed.
  void quantize_inputs(bool on) { quantizes_inputs_ = on; }
  const AdapterSlot& slot() const { return slot_; }

  const at::Tensor weight;
  const at::Tensor bias;  // undefined without

 private:
  at::Tensor product(const at::Tensor& input) const;
  // The product of int8 with what can be applied to it; undefined where this layer or these inputs have none.
  at::Tensor int8_product(const at::Tensor& input, kernels::FusedActivation activation = {},
                          const at::Tensor& residual = {}) const;

  AdapterSlot slot_;
  std::optional<QuantizedWeight> quantized_;
  bool quantizes_inputs_ = false;
};

}  // namespace voxtorch::nn

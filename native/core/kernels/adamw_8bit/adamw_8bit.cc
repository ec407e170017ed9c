// AdamW with both moments in 8 bits (Dettmers et al. 2022, https://arxiv.org/abs/2110.02861): blocks of 256 elements,
// each with its largest magnitude as scale. One pass over a parameter: a block's moments are made float32, updated,
// used and packed again while they are in the nearest cache.
#include "core/kernels/adamw_8bit/adamw_8bit.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/kernels/block_quantization.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

constexpr int64_t kBlock = kAdamBlock;
constexpr int64_t kGrain = 16;  // blocks

struct Moments {
  float first[kBlock], second[kBlock];
};

void unpack(float* to, const uint8_t* from, float scale, const DynamicCodes& book, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = book.value(from[i]) * scale;
}

void pack(uint8_t* to, float& scale, const float* from, const DynamicCodes& book, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float size = std::fabs(from[i]);
    largest = size > largest || size != size ? size : largest;
  }
  scale = largest;
  const float factor = 1.0f / std::max(largest, 1e-38f);
  for (int64_t i = 0; i < count; ++i) to[i] = book.nearest(std::min(1.0f, std::max(-1.0f, from[i] * factor)));
}

// The factors of one step, in float32 as the numbers that they meet.
struct Factors {
  float sign, decay, keep1, add1, keep2, add2, root, eps, rate;
  Factors(const AdamRule& rule, double step)
      : sign(rule.maximize ? -1 : 1),
        decay(static_cast<float>(1 - rule.lr * rule.weight_decay)),
        keep1(static_cast<float>(rule.beta1)),
        add1(static_cast<float>(1 - rule.beta1)),
        keep2(static_cast<float>(rule.beta2)),
        add2(static_cast<float>(1 - rule.beta2)),
        root(static_cast<float>(std::sqrt(1 - std::pow(rule.beta2, step)))),
        eps(static_cast<float>(rule.eps)),
        rate(static_cast<float>(rule.lr / (1 - std::pow(rule.beta1, step)))) {}
};

template <typename scalar_t>
void advance(scalar_t* param, const scalar_t* grad, float* first, float* second, const Factors& by, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float slope = by.sign * static_cast<float>(grad[i]);
    first[i] = first[i] * by.keep1 + slope * by.add1;
    second[i] = second[i] * by.keep2 + by.add2 * slope * slope;
    const float size = std::sqrt(second[i]) / by.root + by.eps;
    param[i] = static_cast<scalar_t>(static_cast<float>(param[i]) * by.decay - by.rate * first[i] / size);
  }
}

template <typename scalar_t>
void step_cpu(const AdamState& state, const Tensor& param, const Tensor& grad, const Factors& factors) {
  const int64_t count = param.numel();
  const bool packed = state.packed();
  auto* values = param.mutable_data_ptr<scalar_t>();
  const auto* slopes = grad.const_data_ptr<scalar_t>();
  const DynamicCodes &with_sign = DynamicCodes::of(true), &without = DynamicCodes::of(false);
  at::parallel_for(0, (count + kBlock - 1) / kBlock, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t at = block * kBlock, size = std::min(kBlock, count - at);
      if (!packed) {
        advance(values + at, slopes + at, state.first.mutable_data_ptr<float>() + at,
                state.second.mutable_data_ptr<float>() + at, factors, size);
        continue;
      }
      Moments moments;
      auto* first = state.first.mutable_data_ptr<uint8_t>() + at;
      auto* second = state.second.mutable_data_ptr<uint8_t>() + at;
      float& scale1 = state.absmax1.mutable_data_ptr<float>()[block];
      float& scale2 = state.absmax2.mutable_data_ptr<float>()[block];
      unpack(moments.first, first, scale1, with_sign, size);
      unpack(moments.second, second, scale2, without, size);
      advance(values + at, slopes + at, moments.first, moments.second, factors, size);
      pack(first, scale1, moments.first, with_sign, size);
      pack(second, scale2, moments.second, without, size);
    }
  });
}

// The same in ATen's operators, for every other device; nothing is read back from it.
void step_anywhere(const AdamState& state, const Tensor& param, const Tensor& grad, const AdamRule& rule) {
  const bool packed = state.packed();
  const auto moment = [&](const Tensor& codes, const Tensor& absmax, bool is_signed) {
    return packed ? dequantize_blockwise(codes, absmax, is_signed, kBlock, at::kFloat) : codes;
  };
  const Tensor slope = rule.maximize ? -grad.to(at::kFloat) : grad.to(at::kFloat);
  const Tensor first = moment(state.first, state.absmax1, true), second = moment(state.second, state.absmax2, false);
  first.mul_(rule.beta1).add_(slope, 1 - rule.beta1);
  second.mul_(rule.beta2).addcmul_(slope, slope, 1 - rule.beta2);
  const Tensor step = state.step.to(param.device()).to(at::kDouble);
  // beta 0 has a logarithm of minus infinity, and then a power of 0, as it should.
  const Tensor root = (1 - (step * std::log(rule.beta2)).exp()).sqrt();
  const Tensor rate = rule.lr / (1 - (step * std::log(rule.beta1)).exp());
  const Tensor size = (second.sqrt() / root.to(at::kFloat)).add_(rule.eps);
  param.copy_(param.to(at::kFloat) * (1 - rule.lr * rule.weight_decay) - first / size * rate.to(at::kFloat));
  if (!packed) return;
  const auto store = [&](const Tensor& values, const Tensor& codes, const Tensor& absmax, bool is_signed) {
    const auto [packed_values, scales] = quantize_blockwise(values, is_signed, kBlock);
    codes.copy_(packed_values);
    absmax.copy_(scales);
  };
  store(first, state.first, state.absmax1, true);
  store(second, state.second, state.absmax2, false);
}

void check(const AdamState& state) {
  const auto name = [](const Tensor& tensor) { return c10::getDtypeNames(tensor.scalar_type()).first; };
  const Tensor& param = state.param;
  const at::ScalarType type = param.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kBFloat16 || type == at::kHalf,
              "adamw_8bit_step_: parameters must be float32, bfloat16 or float16, got ", name(param));
  TORCH_CHECK(state.grad.scalar_type() == type && state.grad.sizes() == param.sizes(),
              "adamw_8bit_step_: the gradient of a ", name(param), " parameter of shape ", param.sizes(), " is ",
              name(state.grad), " ", state.grad.sizes());
  const bool packed = state.packed();
  for (const Tensor* moment : {&state.first, &state.second}) {
    TORCH_CHECK(moment->scalar_type() == (packed ? at::kByte : at::kFloat) && moment->sizes() == param.sizes() &&
                    moment->is_contiguous(),
                "adamw_8bit_step_: both moments must be contiguous, uint8 or float32, of the parameter's shape ",
                param.sizes(), ", got ", name(*moment), " ", moment->sizes());
  }
  const int64_t blocks = (param.numel() + kBlock - 1) / kBlock;
  for (const Tensor* absmax : {&state.absmax1, &state.absmax2}) {
    TORCH_CHECK(!packed || (absmax->scalar_type() == at::kFloat && absmax->dim() == 1 && absmax->size(0) == blocks &&
                            absmax->is_contiguous()),
                "adamw_8bit_step_: absmax must be contiguous float32 of shape [", blocks, "], got ", name(*absmax), " ",
                absmax->sizes());
  }
  TORCH_CHECK(state.step.numel() == 1 && state.step.scalar_type() == at::kFloat,
              "adamw_8bit_step_: the step must be one float32 number, got ", name(state.step), " ", state.step.sizes());
  std::vector<const Tensor*> others = {&state.grad, &state.first, &state.second};
  if (packed) others.insert(others.end(), {&state.absmax1, &state.absmax2});
  for (const Tensor* other : others) {
    TORCH_CHECK(other->device() == param.device(), "adamw_8bit_step_: the parameter is on ", param.device(),
                " and its gradient or state on ", other->device(), "; all must be on the same device");
  }
}

void adamw_8bit_step(at::TensorList params, at::TensorList grads, at::TensorList state1, at::TensorList state2,
                     at::TensorList absmax1, at::TensorList absmax2, at::TensorList steps, double lr, double beta1,
                     double beta2, double eps, double weight_decay, bool maximize) {
  const at::NoGradGuard no_grad;
  const AdamRule rule{lr, beta1, beta2, eps, weight_decay, maximize};
  for (const AdamState& state : adam_states(params, grads, state1, state2, absmax1, absmax2, steps, rule))
    adamw_8bit_alone(state, rule);
}

}  // namespace

std::vector<AdamState> adam_states(at::TensorList params, at::TensorList grads, at::TensorList state1,
                                   at::TensorList state2, at::TensorList absmax1, at::TensorList absmax2,
                                   at::TensorList steps, const AdamRule& rule) {
  const size_t count = params.size();
  for (const auto& list : {grads, state1, state2, absmax1, absmax2, steps}) {
    TORCH_CHECK(list.size() == count, "adamw_8bit_step_: there are ", count, " parameters, and a list of ",
                list.size());
  }
  TORCH_CHECK(rule.beta1 >= 0 && rule.beta1 < 1 && rule.beta2 >= 0 && rule.beta2 < 1,
              "adamw_8bit_step_: betas must be from 0 to below 1");
  std::vector<AdamState> states;
  for (size_t i = 0; i < count; ++i) {
    states.push_back({params[i], grads[i], state1[i], state2[i], absmax1[i], absmax2[i], steps[i]});
    check(states.back());
  }
  // Kernels write past autograd: what is kept of a parameter's values (derived.h) must learn that they change.
  for (const Tensor& param : params) {
    if (!param.is_inference()) param.unsafeGetTensorImpl()->bump_version();
  }
  return states;
}

void adamw_8bit_alone(const AdamState& state, const AdamRule& rule) {
  if (state.param.numel() == 0) return;
  const Tensor param = state.param.contiguous(), grad = state.grad.contiguous();
  if (param.is_cpu()) {
    const Factors factors(rule, state.step.item<double>());
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, param.scalar_type(), "adamw_8bit_step_",
                                    [&] { step_cpu<scalar_t>(state, param, grad, factors); });
  } else {
    step_anywhere(state, param, grad, rule);
  }
  if (!param.is_same(state.param)) state.param.copy_(param);
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // Moments are uint8 with their scales, or float32; then absmax is not read. The step is the number of this one.
  m.def(
      "adamw_8bit_step_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] state1, Tensor(c!)[] state2, "
      "Tensor(d!)[] absmax1, Tensor(e!)[] absmax2, Tensor[] steps, *, float lr, float beta1, float beta2, float eps, "
      "float weight_decay, bool maximize=False) -> ()");
}
// An optimizer's step: no part of a graph.
TORCH_LIBRARY_IMPL(voxtorch, CompositeExplicitAutograd, m) { m.impl("adamw_8bit_step_", adamw_8bit_step); }
TORCH_LIBRARY_IMPL(voxtorch, Autograd, m) { m.impl("adamw_8bit_step_", torch::CppFunction::makeFallthrough()); }

}  // namespace voxtorch::kernels

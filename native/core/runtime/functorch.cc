#include "core/runtime/functorch.h"

#include <ATen/core/Reduction.h>
#include <ATen/functorch/BatchedTensorImpl.h>
#include <ATen/functorch/DynamicLayer.h>
#include <ATen/functorch/TensorWrapper.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/AutogradState.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <torch/library.h>

#include <mutex>
#include <tuple>
#include <utility>

#include "core/runtime/errors.h"
#include "core/runtime/forward_formulas.h"

namespace voxtorch {
namespace {

namespace functorch = at::functorch;
using functorch::TransformType;

// Open jvp levels of all threads. libtorch has one level of forward derivatives in the process; nesting is the
// business of the wrappers.
std::mutex forward_mutex;
int64_t forward_levels = 0;

void enter_forward() {
  const std::lock_guard<std::mutex> lock(forward_mutex);
  if (forward_levels == 0) torch::autograd::ForwardADLevel::get_next_idx();
  ++forward_levels;
}

void leave_forward() {
  const std::lock_guard<std::mutex> lock(forward_mutex);
  if (--forward_levels == 0) torch::autograd::ForwardADLevel::release_idx(0);
}

functorch::RandomnessType randomness_of(const std::string& name) {
  if (name == "same") return functorch::RandomnessType::Same;
  if (name == "different") return functorch::RandomnessType::Different;
  return functorch::RandomnessType::Error;
}

// Batched forms of operators for which libtorch has none, or only in Python; without them each sample is computed
// alone.

at::Tensor batched_linear(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  return at::linear(input, weight, bias);
}

at::Tensor batched_layer_norm(const at::Tensor& input, at::IntArrayRef shape, const std::optional<at::Tensor>& weight,
                              const std::optional<at::Tensor>& bias, double eps) {
  return at::layer_norm(input, shape, weight, bias, eps);
}

// The class of each target and its weight, which is 0 for those to ignore.
std::pair<at::Tensor, at::Tensor> classes_of(const at::Tensor& like, const at::Tensor& target,
                                             const std::optional<at::Tensor>& weight, int64_t ignored) {
  const at::Tensor counts = target.ne(ignored);
  const at::Tensor classes = at::where(counts, target, at::zeros_like(target));
  at::Tensor factor = counts.to(like.scalar_type());
  if (weight.has_value() && weight->defined()) {
    factor = factor * weight->index_select(0, classes.flatten()).view_as(factor);
  }
  return {classes, factor};
}

int64_t class_dim(const at::Tensor& input) { return input.dim() < 2 ? 0 : 1; }

std::tuple<at::Tensor, at::Tensor> batched_nll(const at::Tensor& input, const at::Tensor& target,
                                               const std::optional<at::Tensor>& weight, int64_t reduction,
                                               int64_t ignored) {
  const int64_t dim = class_dim(input);
  const auto [classes, factor] = classes_of(input, target, weight, ignored);
  const at::Tensor loss = -input.gather(dim, classes.unsqueeze(dim)).squeeze(dim) * factor;
  const at::Tensor total = factor.sum();
  if (reduction == at::Reduction::None) return {loss, total};
  return {reduction == at::Reduction::Mean ? loss.sum() / total : loss.sum(), total};
}

at::Tensor batched_nll_backward(const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& target,
                                const std::optional<at::Tensor>& weight, int64_t reduction, int64_t ignored,
                                const at::Tensor& total_weight) {
  const int64_t dim = class_dim(input);
  const auto [classes, factor] = classes_of(input, target, weight, ignored);
  at::Tensor scale = grad_output * factor;
  if (reduction == at::Reduction::Mean) scale = scale / total_weight;
  return at::zeros_like(input).scatter(dim, classes.unsqueeze(dim), -1.0) * scale.unsqueeze(dim);
}

TORCH_LIBRARY_IMPL(voxtorch, FuncTorchBatched, m) {
  m.impl("linear", batched_linear);
  m.impl("layer_norm", batched_layer_norm);
}

TORCH_LIBRARY_IMPL(aten, FuncTorchBatched, m) {
  m.impl("nll_loss_forward", batched_nll);
  m.impl("nll_loss2d_forward", batched_nll);
  m.impl("nll_loss_backward", batched_nll_backward);
  m.impl("nll_loss2d_backward", batched_nll_backward);
}

}  // namespace

bool in_transform() { return !functorch::getDynamicLayerStack().empty(); }

int64_t enter_transform(const std::string& kind, int64_t batch_size, const std::string& randomness) {
  if (kind == "vmap") {
    return functorch::initAndPushDynamicLayer(TransformType::Vmap, c10::SymInt(batch_size), randomness_of(randomness));
  }
  if (kind == "grad") {
    return functorch::initAndPushDynamicLayer(TransformType::Grad, std::nullopt, std::nullopt,
                                              c10::GradMode::is_enabled());
  }
  if (kind != "jvp") fail(ErrorKind::kArguments, "unknown kind of transform");
  add_forward_formulas();
  enter_forward();
  try {
    return functorch::initAndPushDynamicLayer(TransformType::Jvp, std::nullopt, std::nullopt, std::nullopt,
                                              c10::AutogradState::get_tls_state().get_fw_grad_mode());
  } catch (...) {
    leave_forward();
    throw;
  }
}

void leave_transform(int64_t level) {
  while (in_transform() && functorch::getDynamicLayerStack().back().layerId() >= level) {
    const bool forward = functorch::getDynamicLayerStack().back().key() == TransformType::Jvp;
    functorch::popDynamicLayerAndDeleteMetadata();
    if (forward) leave_forward();
  }
}

std::vector<at::Tensor> wrap_for_level(const std::vector<at::Tensor>& tensors, int64_t level, bool requires_grad) {
  std::vector<at::Tensor> wrapped;
  for (const at::Tensor& tensor : tensors) {
    wrapped.push_back(functorch::makeTensorWrapper(tensor, level));
    if (requires_grad) wrapped.back().set_requires_grad(true);
  }
  return wrapped;
}

std::vector<at::Tensor> unwrap_from_level(const std::vector<at::Tensor>& tensors, int64_t level) {
  std::vector<at::Tensor> values;
  for (const at::Tensor& tensor : tensors) {
    const functorch::TensorWrapper* const wrapper = functorch::maybeGetTensorWrapper(tensor);
    values.push_back(wrapper != nullptr && wrapper->level() == level ? wrapper->value() : tensor);
  }
  return values;
}

at::Tensor batch_for_level(const at::Tensor& tensor, int64_t dim, int64_t level) {
  return functorch::addBatchDim(tensor, dim, level);
}

at::Tensor unbatch_from_level(const at::Tensor& tensor, int64_t level, int64_t batch_size, int64_t out_dim) {
  const functorch::BatchedTensorImpl* const batched = functorch::maybeGetBatchedImpl(tensor);
  const bool of_level = batched != nullptr && batched->level() == level;
  const int64_t dims = (of_level ? batched->value().dim() : tensor.dim() + 1);
  TORCH_CHECK_INDEX(out_dim >= -dims && out_dim < dims, "outDims: expected a dimension in [", -dims, ", ", dims - 1,
                    "], got ", out_dim);
  if (of_level) return batched->value().movedim(batched->bdim(), out_dim);
  // The same for each sample.
  const int64_t dim = out_dim < 0 ? out_dim + dims : out_dim;
  std::vector<int64_t> sizes = tensor.sizes().vec();
  sizes.insert(sizes.begin() + dim, batch_size);
  return tensor.unsqueeze(dim).expand(sizes);
}

std::vector<at::Tensor> gradients_here(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
                                       const std::vector<at::Tensor>& grad_outputs) {
  torch::autograd::variable_list roots, seeds;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].requires_grad()) continue;
    roots.push_back(outputs[i]);
    if (!grad_outputs.empty()) seeds.push_back(grad_outputs[i]);
  }
  torch::autograd::variable_list gradients(inputs.size());
  if (!roots.empty()) {
    gradients = torch::autograd::grad(roots, inputs, seeds, /*retain_graph=*/true, /*create_graph=*/true,
                                      /*allow_unused=*/true);
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!gradients[i].defined()) gradients[i] = at::zeros_like(inputs[i]);
  }
  return gradients;
}

at::Tensor without_wrappers(const at::Tensor& tensor) {
  at::Tensor value = tensor;
  while (true) {
    if (functorch::isBatchedTensor(value)) return at::Tensor();
    const functorch::TensorWrapper* const wrapper = functorch::maybeGetTensorWrapper(value);
    if (wrapper == nullptr) return value;
    value = wrapper->value();
  }
}

}  // namespace voxtorch

#include "core/runtime/autograd.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/anomaly_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/library.h>

#include <cmath>
#include <initializer_list>
#include <map>
#include <mutex>
#include <unordered_set>

#include "core/nn/checkpoint.h"
#include "core/runtime/library.h"

namespace voxtorch {
namespace {

using torch::autograd::variable_list;

struct JavaScriptFunction : torch::autograd::Function<JavaScriptFunction> {
  static variable_list forward(torch::autograd::AutogradContext* ctx, const CallbackFunction* function,
                               at::TensorList inputs) {
    ctx->saved_data["owner"] =
        c10::IValue::make_capsule(c10::make_intrusive<CallbackOwner>(function->channel, function->callback));
    ctx->saved_data["inputs"] = static_cast<int64_t>(inputs.size());
    auto results = function->forward();
    if (results.size() != 5) fail(ErrorKind::kArguments, "the call buffer is damaged");
    ctx->save_for_backward(results[1].toTensorVector());
    ctx->mark_dirty(results[2].toTensorVector());
    ctx->mark_non_differentiable(results[3].toTensorVector());
    ctx->set_materialize_grads(results[4].toBool());
    return results[0].toTensorVector();
  }

  static variable_list backward(torch::autograd::AutogradContext* ctx, const variable_list& gradients) {
    const auto owner = c10::dynamic_intrusive_pointer_cast<CallbackOwner>(ctx->saved_data["owner"].toCapsule());
    const size_t inputs = static_cast<size_t>(ctx->saved_data["inputs"].toInt());
    auto results = owner->channel->invoke(owner->callback, kBackward,
                                          {c10::IValue(gradients), c10::IValue(ctx->get_saved_variables())});
    variable_list answer(1);  // the function itself has no gradient
    // A checkpoint gives, instead of gradients, its outputs computed again and the leaves to differentiate them for.
    if (results.size() == 2) {
      results = {nn::second_gradients(results[0].toTensorVector(), results[1].toTensorVector(), gradients)};
    }
    const variable_list given =
        results.empty() || !results[0].isTensorList() ? variable_list() : results[0].toTensorVector();
    TORCH_CHECK(given.size() == inputs,
                "backward of a custom function must return one gradient (or null) per tensor input: expected ", inputs,
                ", got ", given.size());
    answer.insert(answer.end(), given.begin(), given.end());
    return answer;
  }
};

// What a look through a graph finds.
struct Graph {
  std::vector<at::Tensor> leaves;
  size_t nodes = 0;
  double cost = 0;          // of all nodes, as QueuedJob has it
  bool only_native = true;  // on the CPU, without JavaScript or a checkpoint in it
};

double elements_of(const torch::autograd::InputMetadata& metadata) {
  double elements = 1;
  for (const c10::SymInt& size : metadata.shape_as_dim_vector()) elements *= static_cast<double>(size.expect_int());
  return elements;
}

bool contains_any(const std::string& name, std::initializer_list<const char*> parts) {
  return std::any_of(parts.begin(), parts.end(), [&](const char* part) { return name.find(part) != name.npos; });
}

// The sizes say what most functions cost. What takes longer for each element counts sixteenfold: convolutions, networks
// of several layers, decompositions, special functions, and functions of C++ that are not ATen's. A product of [m, k]
// and [k, n] computes two of its size; their number of multiplications is the root of the product of the three sizes.
double cost_of(torch::autograd::Node& node, double elements) {
  constexpr double kManyFold = 16;
  if (dynamic_cast<torch::autograd::AccumulateGrad*>(&node) != nullptr) return elements;
  const std::string name = node.name();
  if (contains_any(name, {"MmBackward", "mmBackward", "MvBackward"})) {
    double sizes = elements;
    size_t known = 0;
    for (const auto& edge : node.next_edges()) {
      if (edge.function == nullptr || edge.input_nr >= edge.function->num_inputs()) continue;
      const auto& metadata = edge.function->input_metadata(edge.input_nr);
      const bool is_bias = metadata.shape_as_dim_vector().size() < 2 && name.find("mm") != name.npos;
      if (metadata.was_default_constructed() || is_bias) continue;
      sizes *= elements_of(metadata);
      ++known;
    }
    return known == 2 ? elements + std::sqrt(sizes) / kManyFold : elements * kManyFold;
  }
  const bool takes_longer =
      contains_any(name, {"::",  "Conv",    "Attention", "Linear",   "Linalg",       "Lstm",     "Gru",     "Rnn",
                          "Svd", "Eig",     "Cholesky",  "Solve",    "Lu",           "Det",      "Inverse", "Cdist",
                          "Ctc", "Sampler", "Pool",      "Upsample", "gamma",        "Special",  "Prod",    "prod",
                          "Fft", "Zeta",    "Bessel",    "Erfinv",   "PowBackward1", "MatrixExp"});
  return elements * (takes_longer ? kManyFold : 1);
}

void measure(torch::autograd::Node& node, Graph& graph) {
  ++graph.nodes;
  if (!node.pre_hooks().empty() || !node.post_hooks().empty() || !node.tensor_pre_hooks().empty() ||
      node.tensor_post_acc_grad_hooks() != nullptr ||
      typeid(node) == typeid(torch::autograd::CppNode<JavaScriptFunction>) || nn::is_checkpoint(node)) {
    graph.only_native = false;
  }
  double elements = 0;
  for (uint32_t i = 0; i < node.num_inputs(); ++i) {
    const auto& metadata = node.input_metadata(i);
    if (metadata.was_default_constructed()) continue;
    if (!metadata.device().is_cpu() || metadata.is_nested_tensor()) {
      graph.only_native = false;
      continue;
    }
    elements += elements_of(metadata);
  }
  if (graph.only_native && graph.cost <= kLightCost) graph.cost += cost_of(node, elements);
}

Graph look_through(const variable_list& roots) {
  Graph graph;
  std::unordered_set<torch::autograd::Node*> seen;
  std::vector<torch::autograd::Node*> stack;
  std::vector<decltype(torch::autograd::impl::grad_accumulator(at::Tensor()))>
      accumulators;  // tensors hold them weakly
  const auto visit = [&](torch::autograd::Node* node) {
    if (node != nullptr && seen.insert(node).second) stack.push_back(node);
  };
  for (const at::Tensor& root : roots) {
    if (!root.defined() || !root.requires_grad()) continue;
    if (root.grad_fn())
      visit(root.grad_fn().get());
    else
      visit(accumulators.emplace_back(torch::autograd::impl::grad_accumulator(root)).get());
  }
  while (!stack.empty()) {
    torch::autograd::Node* node = stack.back();
    stack.pop_back();
    if (auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(node)) {
      if (!leaf->variable.defined()) continue;
      graph.leaves.push_back(leaf->variable);
    }
    measure(*node, graph);
    for (const auto& edge : node->next_edges()) visit(edge.function.get());
  }
  return graph;
}

// Beyond this the engine's own work counts, whatever the sizes.
constexpr size_t kLightNodes = 256;

// A gradient as optimizers may read it: without a conjugation or negation to come.
void settle_gradient(const at::Tensor& leaf) {
  const at::Tensor& gradient = leaf.grad();
  if (!gradient.defined() || !(gradient.is_conj() || gradient.is_neg())) return;
  const at::NoGradGuard no_grad;
  leaf.mutable_grad() = gradient.resolve_conj().resolve_neg();
}

at::Tensor zeros_with_memory(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype,
                             std::optional<at::Layout> layout, std::optional<at::Device> device,
                             std::optional<bool> pin_memory) {
  return at::zeros_symint(size, dtype, layout, device, pin_memory);
}

}  // namespace

std::vector<at::Tensor> graph_leaves(const std::vector<at::Tensor>& roots) { return look_through(roots).leaves; }

void BackwardJob::claim_all() {
  const Graph graph = look_through(roots);
  const bool counts = graph.only_native && !create_graph && graph.nodes <= kLightNodes && graph.cost <= kLightCost;
  cost = counts ? static_cast<int64_t>(graph.cost) : kUnknownCost;
  claims.push_back({BusyTable::graph_key(), Use::kRead});
  for (const at::Tensor& leaf : graph.leaves) {
    claim(leaf, Use::kRead);
    if (!accumulate) continue;
    claims.push_back({BusyTable::gradient_key(leaf), Use::kWrite});
    held.push_back(leaf);
    if (leaf.grad().defined()) claim(leaf.grad(), Use::kWrite);
  }
}

c10::IValue BackwardJob::work() {
  c10::IValue results;
  if (accumulate) {
    torch::autograd::backward(roots, gradients, retain, create_graph, inputs);
    // Not of a graph that is kept for a gradient of the gradient.
    if (!create_graph) {
      for (const at::Tensor& leaf : held) settle_gradient(leaf);
    }
  } else {
    results = torch::autograd::grad(roots, inputs, gradients, retain, create_graph, allow_unused);
  }
  // The graph is freed here, on the executor, not on the JavaScript thread.
  roots.clear();
  gradients.clear();
  inputs.clear();
  return results;
}

std::vector<at::Tensor> CallbackFunction::apply(at::TensorList inputs) {
  return JavaScriptFunction::apply(this, inputs);
}

namespace {

class AccumulateHooks : public torch::autograd::PostAccumulateGradHook {
 public:
  void operator()(const at::Tensor& leaf) override {
    std::vector<std::shared_ptr<CallbackOwner>> callbacks;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (const auto& [number, callback] : callbacks_) callbacks.push_back(callback);
    }
    for (const auto& callback : callbacks) callback->call(kAccumulateHook, {leaf});
  }

  unsigned add(std::shared_ptr<CallbackOwner> callback) {
    const std::lock_guard<std::mutex> lock(mutex_);
    callbacks_.emplace(next_, std::move(callback));
    return next_++;
  }

  void remove(unsigned number) {
    const std::lock_guard<std::mutex> lock(mutex_);
    callbacks_.erase(number);
  }

 private:
  std::mutex mutex_;
  std::map<unsigned, std::shared_ptr<CallbackOwner>> callbacks_;  // in the order of registration
  unsigned next_ = 0;
};

}  // namespace

unsigned add_accumulate_hook(const at::Tensor& leaf, std::shared_ptr<CallbackOwner> callback) {
  TORCH_CHECK_VALUE(leaf.requires_grad() && leaf.is_leaf(), "expected a leaf that requires a gradient");
  if (torch::autograd::impl::post_acc_grad_hooks(leaf) == nullptr) {
    torch::autograd::impl::set_post_acc_grad_hooks(leaf, std::make_unique<AccumulateHooks>());
  }
  return static_cast<AccumulateHooks&>(*torch::autograd::impl::post_acc_grad_hooks(leaf)).add(std::move(callback));
}

void remove_accumulate_hook(const at::Tensor& leaf, unsigned number) {
  const auto& hooks = torch::autograd::impl::post_acc_grad_hooks(leaf);
  if (hooks != nullptr) static_cast<AccumulateHooks&>(*hooks).remove(number);
}

void check_gradient_free(const at::Tensor& tensor) {
  BusyTable& busy = BusyTable::instance();
  if (busy.any() && busy.gradient_busy(tensor)) {
    fail(ErrorKind::kBusy, "a queued backward pass is writing this gradient; await backward() first");
  }
}

void set_gradient(const at::Tensor& tensor, const at::Tensor& gradient) {
  check_gradient_free(tensor);
  if (gradient.defined()) {
    TORCH_CHECK_VALUE(!gradient.is_same(tensor), "a tensor cannot be its own gradient");
    TORCH_CHECK_VALUE(gradient.device() == tensor.device(), "a gradient must be on the same device as its tensor");
    TORCH_CHECK_VALUE(gradient.scalar_type() == tensor.scalar_type(), "a gradient must have its tensor's dtype");
    TORCH_CHECK_VALUE(gradient.sizes().equals(tensor.sizes()), "a gradient must have its tensor's shape");
    tensor.mutable_grad() = gradient;
  } else if (tensor.grad().defined()) {
    tensor.mutable_grad().reset();
  }
}

void give_zeros_memory() {
  for (const c10::DispatchKey key : {c10::DispatchKey::CPU, c10::DispatchKey::CUDA}) {
    replace_kernels(key, [](torch::Library& m) { m.impl("_efficientzerotensor", TORCH_FN(zeros_with_memory)); });
  }
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("set_detect_anomaly(bool enabled) -> ()",
        [](bool enabled) { torch::autograd::AnomalyMode::set_enabled(enabled, true); });
  // Forgets the casted weights, which may change before the next region.
  m.def("clear_autocast_cache() -> ()", clear_autocast_cache);
}

}  // namespace voxtorch

// Autograd: queued backward passes, gradients, and autograd functions written in JavaScript.
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/library.h>

#include <algorithm>
#include <unordered_set>

#include "binding/environment.h"
#include "core/nn/checkpoint.h"

namespace voxtorch {
namespace {

using torch::autograd::variable_list;

bool truth(const Reader& cell) { return cell.tag() == Tag::kBool && cell.value() != 0; }

// What a look through a graph finds.
struct Graph {
  std::vector<at::Tensor> leaves;  // whose gradient a backward pass will write
  size_t nodes = 0;
  int64_t elements = 0;     // of all gradients on the way
  bool only_native = true;  // on the CPU, without JavaScript or a checkpoint in it
};

bool calls_javascript(torch::autograd::Node& node);

void measure(torch::autograd::Node& node, Graph& graph) {
  ++graph.nodes;
  if (!node.pre_hooks().empty() || !node.post_hooks().empty() || !node.tensor_pre_hooks().empty() ||
      calls_javascript(node) || nn::is_checkpoint(node)) {
    graph.only_native = false;
  }
  for (uint32_t i = 0; i < node.num_inputs(); ++i) {
    const auto& metadata = node.input_metadata(i);
    if (metadata.was_default_constructed()) continue;
    if (!metadata.device().is_cpu() || metadata.is_nested_tensor()) {
      graph.only_native = false;
      continue;
    }
    int64_t elements = 1;
    for (const c10::SymInt& size : metadata.shape_as_dim_vector()) elements *= size.expect_int();
    graph.elements += elements;
  }
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

// Some formulas (sgn's) answer with zeros that have no memory. Optimisers, kernels and readers look at memory: every
// zero gets some, at the one operator that makes such tensors.
at::Tensor zeros_with_memory(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype,
                             std::optional<at::Layout> layout, std::optional<at::Device> device,
                             std::optional<bool> pin_memory) {
  return at::zeros_symint(size, dtype, layout, device, pin_memory);
}

void give_zeros_memory() {
  // libtorch warns that its kernel is replaced, which is the purpose.
  struct Silent : c10::WarningHandler {
    void process(const c10::Warning&) override {}
  } handler;
  const c10::WarningUtils::WarningHandlerGuard guard(&handler);
  for (const c10::DispatchKey key : {c10::DispatchKey::CPU, c10::DispatchKey::CUDA}) {
    static std::vector<torch::Library>* libraries = new std::vector<torch::Library>();
    libraries->emplace_back(torch::Library::IMPL, "aten", key, __FILE__, __LINE__);
    libraries->back().impl("_efficientzerotensor", TORCH_FN(zeros_with_memory));
  }
}

// A gradient as optimisers may read it: without a conjugation or negation to come.
void settle_gradient(const at::Tensor& leaf) {
  const at::Tensor& gradient = leaf.grad();
  if (!gradient.defined() || !(gradient.is_conj() || gradient.is_neg())) return;
  const at::NoGradGuard no_grad;
  leaf.mutable_grad() = gradient.resolve_conj().resolve_neg();
}

class BackwardJob : public QueuedJob {
 public:
  variable_list roots, gradients, inputs;
  std::optional<bool> retain;
  bool create_graph = false;
  bool accumulate = true;  // into .grad, else return
  bool allow_unused = false;

  void claim_all() {
    const Graph graph = look_through(roots);
    light = graph.only_native && !create_graph && graph.nodes <= kLightNodes && graph.elements <= kLightElements;
    claims.push_back({BusyTable::graph_key(), Use::kRead});
    for (const at::Tensor& leaf : graph.leaves) {
      claim(leaf, Use::kRead);
      if (!accumulate) continue;
      claims.push_back({BusyTable::gradient_key(leaf), Use::kWrite});
      held.push_back(leaf);
      if (leaf.grad().defined()) claim(leaf.grad(), Use::kWrite);
    }
  }

 protected:
  c10::IValue work() override {
    if (accumulate) {
      torch::autograd::backward(roots, gradients, retain, create_graph, inputs);
      // Not of a graph that is kept for a gradient of the gradient.
      if (!create_graph) {
        for (const at::Tensor& leaf : held) settle_gradient(leaf);
      }
      drop();
      return c10::IValue();
    }
    variable_list results = torch::autograd::grad(roots, inputs, gradients, retain, create_graph, allow_unused);
    drop();
    return c10::IValue(std::move(results));
  }

 private:
  // The graph is freed here, on the executor, not on the JavaScript thread.
  void drop() {
    roots.clear();
    gradients.clear();
    inputs.clear();
  }
};

// backwardQueued with cells: roots, gradients, inputs, retainGraph (or null), createGraph, accumulate, allowUnused.
napi_value backward_queued(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("backward", [&] {
    Reader cells = self.arguments();
    auto job = std::make_shared<BackwardJob>();
    job->roots = read_tensors(next(cells), self.slab);
    job->gradients = read_tensors(next(cells), self.slab);
    job->inputs = read_tensors(next(cells), self.slab);
    const Reader retain = next(cells);
    if (retain.tag() == Tag::kBool) job->retain = truth(retain);
    job->create_graph = truth(next(cells));
    job->accumulate = truth(next(cells));
    job->allow_unused = truth(next(cells));
    job->name = job->accumulate ? "backward" : "grad";
    for (const at::Tensor& tensor : job->roots) {
      if (!tensor.defined()) throw BindingError(ErrorKind::kArguments, "backward needs tensors, got null");
    }
    for (const at::Tensor& tensor : job->inputs) {
      if (!tensor.defined()) throw BindingError(ErrorKind::kArguments, "inputs must be tensors, got null");
    }
    job->claim_all();
    self.submit(std::move(job));
  });
  return nullptr;
}

void check_gradient_free(const at::Tensor& tensor) {
  BusyTable& busy = BusyTable::instance();
  if (busy.any() && busy.gradient_busy(tensor)) {
    throw BindingError(ErrorKind::kBusy, "a queued backward pass is writing this gradient; await backward() first");
  }
}

// gradient with cells: tensor.
napi_value gradient(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("grad", [&] {
    Reader cells = self.arguments();
    const at::Tensor tensor = read_tensor(next(cells), self.slab);
    check_gradient_free(tensor);
    Writer writer = self.results();
    write_value(writer, tensor.grad(), self.slab, self.scope());
  });
  return nullptr;
}

// setGradient with cells: tensor, gradient or null.
napi_value set_gradient(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("grad", [&] {
    Reader cells = self.arguments();
    const at::Tensor tensor = read_tensor(next(cells), self.slab);
    const Reader value = next(cells);
    check_gradient_free(tensor);
    if (value.tag() == Tag::kNull) {
      if (tensor.grad().defined()) tensor.mutable_grad().reset();
      return;
    }
    const at::Tensor grad = read_tensor(value, self.slab);
    if (grad.is_same(tensor)) throw BindingError(ErrorKind::kValue, "a tensor cannot be its own gradient");
    if (grad.device() != tensor.device())
      throw BindingError(ErrorKind::kValue, "a gradient must be on the same device as its tensor");
    if (grad.scalar_type() != tensor.scalar_type())
      throw BindingError(ErrorKind::kValue, "a gradient must have its tensor's dtype");
    if (!grad.sizes().equals(tensor.sizes()))
      throw BindingError(ErrorKind::kValue, "a gradient must have its tensor's shape");
    tensor.mutable_grad() = grad;
  });
  return nullptr;
}

// clearGradients with cells: tensors. Frees every gradient.
napi_value clear_gradients(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("zeroGrad", [&] {
    Reader cells = self.arguments();
    const auto tensors = read_tensors(next(cells), self.slab);
    for (const at::Tensor& tensor : tensors) {
      if (tensor.defined()) check_gradient_free(tensor);
    }
    for (const at::Tensor& tensor : tensors) {
      if (tensor.defined() && tensor.grad().defined()) tensor.mutable_grad().reset();
    }
  });
  return nullptr;
}

// gradFnName with cells: tensor. The name of the function that made it, or null.
napi_value grad_fn_name(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("gradFn", [&] {
    Reader cells = self.arguments();
    const at::Tensor tensor = read_tensor(next(cells), self.slab);
    Writer writer = self.results();
    if (tensor.grad_fn())
      write_value(writer, c10::IValue(tensor.grad_fn()->name()), self.slab, 0);
    else
      write_value(writer, c10::IValue(), self.slab, 0);
  });
  return nullptr;
}

// An autograd function whose forward and backward are JavaScript. Forward runs at once, on the JavaScript thread that
// applies it; backward is called from whichever thread the engine uses.
struct JavaScriptFunction : torch::autograd::Function<JavaScriptFunction> {
  static variable_list forward(torch::autograd::AutogradContext* ctx, Environment* self, double callback,
                               at::TensorList inputs) {
    const auto id = static_cast<uint32_t>(callback);
    ctx->saved_data["owner"] = c10::IValue::make_capsule(c10::make_intrusive<CallbackOwner>(self->channel, id));
    ctx->saved_data["inputs"] = static_cast<int64_t>(inputs.size());
    Context context = self->context();
    context.grad = false;
    // Results: outputs, saved, dirty, not differentiable, materialise missing gradients.
    auto results = self->invoke_here(id, kForward, context, {}, static_cast<size_t>(self->buffer[Environment::kEnd]));
    if (results.size() != 5) throw BindingError(ErrorKind::kArguments, "the call buffer is damaged");
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
    variable_list answer(2);  // the environment and the callback have no gradient
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

bool calls_javascript(torch::autograd::Node& node) {
  return typeid(node) == typeid(torch::autograd::CppNode<JavaScriptFunction>);
}

// applyFunction with cells: callback, input tensors. Writes the outputs.
napi_value apply_function(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("apply", [&] {
    Reader cells = self.arguments();
    const double callback = double(read_int(next(cells)));
    const variable_list inputs = read_tensors(next(cells), self.slab);
    const double begin = self.buffer[Environment::kBegin];
    const uint32_t scope = self.scope();
    const Context context = self.context();
    variable_list outputs;
    {
      ContextGuard guard(context);
      outputs = JavaScriptFunction::apply(&self, callback, at::TensorList(inputs));
    }
    // The callback used the buffer's header for its own calls.
    self.buffer[Environment::kBegin] = begin;
    self.buffer[Environment::kStatus] = 0;
    self.write_result(c10::IValue(std::move(outputs)), scope);
  });
  return nullptr;
}

// graphLeaves with cells: tensors, tensors to leave out. Writes the leaves that the first are computed from.
napi_value graph_leaves(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("checkpoint", [&] {
    Reader cells = self.arguments();
    const uint32_t scope = self.scope();
    variable_list leaves = look_through(read_tensors(next(cells), self.slab)).leaves;
    const variable_list without = read_tensors(next(cells), self.slab);
    const auto is_left_out = [&](const at::Tensor& leaf) {
      return std::any_of(without.begin(), without.end(), [&](const at::Tensor& one) { return one.is_same(leaf); });
    };
    leaves.erase(std::remove_if(leaves.begin(), leaves.end(), is_left_out), leaves.end());
    self.write_result(c10::IValue(std::move(leaves)), scope);
  });
  return nullptr;
}

// clearAutocast(): forgets the casted weights, which may change before the next region.
napi_value clear_autocast(napi_env, napi_callback_info) {
  clear_autocast_cache();
  return nullptr;
}

napi_value set_anomaly(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("detectAnomaly", [&] {
    Reader cells = self.arguments();
    const bool enabled = truth(next(cells));
    torch::autograd::AnomalyMode::set_enabled(enabled, true);
  });
  return nullptr;
}

}  // namespace

void export_autograd(napi_env env, napi_value exports) {
  // Once in the process: every thread has an environment.
  static const bool given = (give_zeros_memory(), true);
  (void)given;
  export_function(env, exports, "backwardQueued", backward_queued);
  export_function(env, exports, "gradient", gradient);
  export_function(env, exports, "setGradient", set_gradient);
  export_function(env, exports, "clearGradients", clear_gradients);
  export_function(env, exports, "gradFnName", grad_fn_name);
  export_function(env, exports, "applyFunction", apply_function);
  export_function(env, exports, "graphLeaves", graph_leaves);
  export_function(env, exports, "setAnomaly", set_anomaly);
  export_function(env, exports, "clearAutocast", clear_autocast);
}

}  // namespace voxtorch

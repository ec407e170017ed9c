// Backward passes, gradients, and what of a graph is written in JavaScript: autograd functions, hooks of gradients and
// of the blocks of a network.
#include "core/runtime/autograd.h"

#include <torch/csrc/autograd/variable.h>

#include <algorithm>

#include "binding/environment.h"
#include "core/block.h"
#include "core/runtime/functorch.h"

namespace voxtorch {
namespace {

bool truth(const Reader& cell) { return cell.tag() == Tag::kBool && cell.value() != 0; }

// backwardQueued with cells: roots, gradients, inputs, retainGraph (or null), createGraph, accumulate, allowUnused.
void backward_queued(Environment& self, Reader& cells) {
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
    if (!tensor.defined()) fail(ErrorKind::kArguments, "backward needs tensors, got null");
  }
  for (const at::Tensor& tensor : job->inputs) {
    if (!tensor.defined()) fail(ErrorKind::kArguments, "inputs must be tensors, got null");
  }
  job->claim_all();
  self.submit(std::move(job));
}

// gradient with cells: tensor.
void gradient(Environment& self, Reader& cells) {
  const at::Tensor tensor = read_tensor(next(cells), self.slab);
  check_gradient_free(tensor);
  self.write_result(tensor.grad());
}

// setGradient with cells: tensor, gradient or null.
void write_gradient(Environment& self, Reader& cells) {
  const at::Tensor tensor = read_tensor(next(cells), self.slab);
  const Reader value = next(cells);
  set_gradient(tensor, value.tag() == Tag::kNull ? at::Tensor() : read_tensor(value, self.slab));
}

// gradFnName with cells: tensor. The name of the function that made it, or null.
void grad_fn_name(Environment& self, Reader& cells) {
  const at::Tensor tensor = read_tensor(next(cells), self.slab);
  self.write_result(tensor.grad_fn() ? c10::IValue(tensor.grad_fn()->name()) : c10::IValue());
}

// applyFunction with cells: callback, input tensors. Writes the outputs.
void apply_function(Environment& self, Reader& cells) {
  const auto callback = static_cast<uint32_t>(read_int(next(cells)));
  const std::vector<at::Tensor> inputs = read_tensors(next(cells), self.slab);
  const double begin = self.buffer[Environment::kBegin];
  const uint32_t scope = self.scope();
  const Context context = self.context();
  const auto forward = [&] {
    Context without_grad = self.context();
    without_grad.grad = false;
    const auto at = static_cast<size_t>(self.buffer[Environment::kEnd]);
    return self.invoke_here(callback, kForward, without_grad, {}, at);
  };
  if (in_transform()) {
    fail(ErrorKind::kNotImplemented,
         "expected no AutogradFunction inside a transform of func, got one. Write its formula with "
         "operators there");
  }
  std::vector<at::Tensor> outputs;
  {
    ContextGuard guard(context);
    outputs = CallbackFunction{self.channel, callback, forward}.apply(inputs);
  }
  // The callback used the buffer's header for its own calls.
  self.buffer[Environment::kBegin] = begin;
  self.buffer[Environment::kStatus] = 0;
  self.write_result(c10::IValue(std::move(outputs)), scope);
}

// graphLeaves with cells: tensors, tensors to leave out. Writes the leaves that the first are computed from.
void write_graph_leaves(Environment& self, Reader& cells) {
  std::vector<at::Tensor> leaves = graph_leaves(read_tensors(next(cells), self.slab));
  const std::vector<at::Tensor> without = read_tensors(next(cells), self.slab);
  const auto is_left_out = [&](const at::Tensor& leaf) {
    return std::any_of(without.begin(), without.end(), [&](const at::Tensor& one) { return one.is_same(leaf); });
  };
  leaves.erase(std::remove_if(leaves.begin(), leaves.end(), is_left_out), leaves.end());
  self.write_result(c10::IValue(std::move(leaves)));
}

// registerHook with cells: tensor, callback. Writes the hook's position.
void register_hook(Environment& self, Reader& cells) {
  const at::Tensor tensor = read_tensor(next(cells), self.slab);
  const auto owner = std::make_shared<CallbackOwner>(self.channel, static_cast<uint32_t>(read_int(next(cells))));
  const unsigned position =
      tensor.register_hook([owner](const at::Tensor& grad) { return owner->call(kGradientHook, {grad}); });
  self.results().cell(Tag::kNumber, position);
}

void remove_hook(Environment& self, Reader& cells) {
  const at::Tensor tensor = read_tensor(next(cells), self.slab);
  tensor.remove_hook(static_cast<unsigned>(read_int(next(cells))));
}

// registerAccumulateHook with cells: leaf, callback. Writes the hook's number.
void register_accumulate_hook(Environment& self, Reader& cells) {
  const at::Tensor tensor = read_tensor(next(cells), self.slab);
  auto owner = std::make_shared<CallbackOwner>(self.channel, static_cast<uint32_t>(read_int(next(cells))));
  self.results().cell(Tag::kNumber, add_accumulate_hook(tensor, std::move(owner)));
}

void unregister_accumulate_hook(Environment& self, Reader& cells) {
  const at::Tensor tensor = read_tensor(next(cells), self.slab);
  remove_accumulate_hook(tensor, static_cast<unsigned>(read_int(next(cells))));
}

// setForwardHook with cells: module, callback or null.
void set_forward_hook(Environment& self, Reader& cells) {
  const c10::intrusive_ptr<Module> module = read_module(next(cells), self.slab).toCustomClass<Module>();
  Block* const block = dynamic_cast<Block*>(module.get());
  if (block == nullptr) fail(ErrorKind::kValue, "a " + module->kind + " has no output of its own");
  const Reader callback = next(cells);
  if (callback.tag() == Tag::kNull) return block->set_hook(nullptr);
  const auto owner = std::make_shared<CallbackOwner>(self.channel, static_cast<uint32_t>(read_int(callback)));
  block->set_hook(std::make_shared<Block::Hook>([owner](const at::Tensor& input, const at::Tensor& output) {
    const at::Tensor answer = owner->call(kForwardHook, {input, output});
    return answer.defined() ? answer : output;
  }));
}

}  // namespace

void export_autograd(Napi::Object exports) {
  export_cells<backward_queued>(exports, "backwardQueued", "backward");
  export_cells<gradient>(exports, "gradient", "grad");
  export_cells<write_gradient>(exports, "setGradient", "grad");
  export_cells<grad_fn_name>(exports, "gradFnName", "gradFn");
  export_cells<apply_function>(exports, "applyFunction", "apply");
  export_cells<write_graph_leaves>(exports, "graphLeaves", "checkpoint");
  export_cells<register_hook>(exports, "registerHook", "registerHook");
  export_cells<remove_hook>(exports, "removeHook", "registerHook");
  export_cells<register_accumulate_hook>(exports, "registerAccumulateHook", "registerPostAccumulateGradHook");
  export_cells<unregister_accumulate_hook>(exports, "removeAccumulateHook", "registerPostAccumulateGradHook");
  export_cells<set_forward_hook>(exports, "setForwardHook", "registerForwardHook");
}

}  // namespace voxtorch

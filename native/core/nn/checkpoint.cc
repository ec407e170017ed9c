#include "core/nn/checkpoint.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <memory>
#include <mutex>

#include "core/runtime/recording.h"

namespace voxtorch::nn {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::vector<at::Generator> generators() {
  std::vector<at::Generator> all{at::detail::getDefaultCPUGenerator()};
  if (!at::hasCUDA()) return all;
  const auto devices = static_cast<c10::DeviceIndex>(at::getNumGPUs());
  for (c10::DeviceIndex i = 0; i < devices; ++i) {
    all.push_back(at::globalContext().defaultGenerator(c10::Device(c10::kCUDA, i)));
  }
  return all;
}

// The autocast that a layer ran under. Its cache of casted weights is off meanwhile: what the run without a graph casts
// must not be found by one with a graph.
class Autocast {
 public:
  struct State {
    c10::DeviceType device;
    bool enabled;
    at::ScalarType dtype;
  };

  static Autocast current() {
    Autocast result;
    for (const c10::DeviceType device : {c10::kCPU, c10::kCUDA}) {
      result.states.push_back(
          {device, at::autocast::is_autocast_enabled(device), at::autocast::get_autocast_dtype(device)});
    }
    result.cache = at::autocast::is_autocast_cache_enabled();
    return result;
  }

  void set() const {
    for (const State& state : states) {
      at::autocast::set_autocast_enabled(state.device, state.enabled);
      at::autocast::set_autocast_dtype(state.device, state.dtype);
    }
    at::autocast::set_autocast_cache_enabled(cache);
  }

  Autocast without_cache() const {
    Autocast result = *this;
    result.cache = false;
    return result;
  }

 private:
  std::vector<State> states;
  bool cache = true;
};

class AutocastGuard {
 public:
  explicit AutocastGuard(const Autocast& now) : before(Autocast::current()) { now.set(); }
  ~AutocastGuard() { before.set(); }
  AutocastGuard(const AutocastGuard&) = delete;
  AutocastGuard& operator=(const AutocastGuard&) = delete;

 private:
  const Autocast before;
};

class RandomGuard {
 public:
  explicit RandomGuard(const Tensors& now) : before(random_states()) { set_random_states(now); }
  ~RandomGuard() { set_random_states(before); }
  RandomGuard(const RandomGuard&) = delete;
  RandomGuard& operator=(const RandomGuard&) = delete;

 private:
  const Tensors before;
};

// What backward needs to run a layer again, in addition to tensors.
struct Layer : torch::CustomClassHolder {
  c10::intrusive_ptr<Module> module;  // alive as long as the graph is
  Run run;
  bool training = false;
  std::vector<bool> given;  // which inputs are defined
  Tensors random;
  Autocast autocast;
};

// All of them again, where the defined ones follow each other.
Tensors with_undefined(const variable_list& defined, const std::vector<bool>& given) {
  Tensors all;
  size_t next = 0;
  for (const bool one : given) all.push_back(one ? defined[next++] : Tensor());
  return all;
}

struct Checkpointed : torch::autograd::Function<Checkpointed> {
  // `tensors`: the defined inputs, then the layer's parameters, whose gradients are thereby this node's to give.
  static variable_list forward(AutogradContext* ctx, const c10::intrusive_ptr<Layer>& layer, at::TensorList tensors) {
    ctx->save_for_backward(tensors.vec());
    ctx->saved_data["layer"] = c10::IValue::make_capsule(layer);
    ctx->set_materialize_grads(false);
    const AutocastGuard autocast(layer->autocast.without_cache());
    const RunsAgain runs_again;
    return layer->run(with_undefined(tensors.vec(), layer->given));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto layer = c10::dynamic_intrusive_pointer_cast<Layer>(ctx->saved_data["layer"].toCapsule());
    TORCH_CHECK(layer->module->training() == layer->training,
                "train() or eval() was called between the forward and the backward pass of a checkpointed layer; go "
                "backward first");
    const variable_list saved = ctx->get_saved_variables();
    const size_t inputs = static_cast<size_t>(std::count(layer->given.begin(), layer->given.end(), true));
    variable_list again;  // inputs cut off from the graph that they came with, and the parameters themselves
    variable_list leaves;
    std::vector<size_t> places;
    for (size_t i = 0; i < saved.size(); ++i) {
      const bool is_input = i < inputs;
      again.push_back(is_input ? saved[i].detach().requires_grad_(saved[i].requires_grad()) : saved[i]);
      if (!saved[i].requires_grad()) continue;
      leaves.push_back(again.back());
      places.push_back(i);
    }
    variable_list outputs;
    {
      const at::AutoGradMode recording(true);
      const AutocastGuard autocast(layer->autocast.without_cache());
      const RandomGuard random(layer->random);
      outputs = layer->run(with_undefined(again, layer->given));
    }
    variable_list found = second_gradients(outputs, leaves, grads);
    variable_list answer(saved.size() + 1);  // the first argument is not a tensor
    for (size_t i = 0; i < places.size(); ++i) answer[places[i] + 1] = std::move(found[i]);
    return answer;
  }
};

// Takes a leaf's hooks away for a while.
class WithoutHooks {
 public:
  explicit WithoutHooks(const Tensors& leaves) : leaves(leaves), hooks(leaves.size()) { exchange(); }
  ~WithoutHooks() { exchange(); }
  WithoutHooks(const WithoutHooks&) = delete;
  WithoutHooks& operator=(const WithoutHooks&) = delete;

 private:
  void exchange() {
    for (size_t i = 0; i < leaves.size(); ++i) {
      torch::autograd::impl::materialize_autograd_meta(leaves[i])->hooks_.swap(hooks[i]);
    }
  }

  const Tensors leaves;
  std::vector<decltype(torch::autograd::AutogradMeta::hooks_)> hooks;
};

}  // namespace

Tensors second_gradients(const Tensors& outputs, const Tensors& leaves, const Tensors& gradients) {
  TORCH_CHECK(!at::GradMode::is_enabled(), "a checkpoint has no second derivative; compute without it");
  TORCH_CHECK(outputs.size() == gradients.size(), "a checkpointed function returned ", outputs.size(),
              " tensors the second time, and ", gradients.size(), " the first");
  Tensors roots, root_gradients;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!gradients[i].defined() || !outputs[i].defined() || !outputs[i].requires_grad()) continue;
    roots.push_back(outputs[i]);
    root_gradients.push_back(gradients[i]);
  }
  if (roots.empty()) return Tensors(leaves.size());
  const WithoutHooks quiet(leaves);
  return torch::autograd::grad(roots, leaves, root_gradients, std::nullopt, false, true);
}

bool is_checkpoint(const torch::autograd::Node& node) {
  return typeid(node) == typeid(torch::autograd::CppNode<Checkpointed>);
}

Tensors random_states() {
  Tensors states;
  for (at::Generator& generator : generators()) {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    states.push_back(generator.get_state());
  }
  return states;
}

void set_random_states(const Tensors& states) {
  std::vector<at::Generator> all = generators();
  TORCH_CHECK(states.size() == all.size(), "there are ", all.size(), " default generators, got ", states.size(),
              " states");
  for (size_t i = 0; i < all.size(); ++i) {
    const std::lock_guard<std::mutex> lock(all[i].mutex());
    all[i].set_state(states[i]);
  }
}

bool should_checkpoint(const Checkpointing& layers) {
  return layers.enabled.load(std::memory_order_relaxed) && at::GradMode::is_enabled();
}

Tensors checkpoint(Module& module, const Tensors& inputs, const Run& run) {
  auto layer = c10::make_intrusive<Layer>();
  layer->module = c10::intrusive_ptr<Module>::unsafe_reclaim_from_nonowning(&module);
  layer->run = run;
  layer->training = module.training();
  layer->random = random_states();
  layer->autocast = Autocast::current();
  Tensors tensors;
  for (const Tensor& input : inputs) {
    layer->given.push_back(input.defined());
    if (input.defined()) tensors.push_back(input);
  }
  for (const Tensor& parameter : module.all_parameters()) tensors.push_back(parameter);
  return Checkpointed::apply(layer, at::TensorList(tensors));
}

namespace {

int64_t set_checkpointing(Module& module, bool enabled) {
  int64_t found = 0;
  if (auto* layers = dynamic_cast<Checkpointing*>(&module)) {
    layers->enabled.store(enabled, std::memory_order_relaxed);
    ++found;
  }
  for (const auto& [name, child] : module.children()) found += set_checkpointing(*child, enabled);
  return found;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // Of every stack of layers in a network; returns how many there are.
  m.def("module_gradient_checkpointing(__torch__.torch.classes.voxtorch.Module self, bool enabled) -> int stacks",
        [](const c10::intrusive_ptr<Module>& self, bool enabled) { return set_checkpointing(*self, enabled); });
  m.def("random_states() -> Tensor[]", random_states);
  // A leaf over the same memory; unlike requires_grad_ it changes nothing that a queued job might use.
  m.def("detached_leaf(Tensor self, bool requires_grad) -> Tensor",
        [](const Tensor& self, bool requires_grad) { return self.detach().set_requires_grad(requires_grad); });
  m.def("set_random_states(Tensor[] states) -> ()", [](const Tensors& states) { set_random_states(states); });
}

}  // namespace voxtorch::nn

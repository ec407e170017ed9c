#include "core/module.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/accumulate.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/block.h"
#include "core/nn/adapter.h"
#include "core/nn/tied_head.h"
#include "core/runtime/cpu_memory.h"

namespace voxtorch {
namespace {

constexpr size_t kOwnMapping = size_t{1} << 20;

}  // namespace

void Module::train(bool mode) {
  training_.store(mode, std::memory_order_relaxed);
  for (const auto& [name, child] : children_) child->train(mode);
}

std::vector<at::Tensor> Module::all_parameters() const {
  std::vector<at::Tensor> all;
  for (const auto& [name, tensor] : parameters_) all.push_back(tensor);
  if (const nn::AdapterSlot* slot = const_cast<Module*>(this)->adapters()) {
    const auto adapters = slot->tensors();
    all.insert(all.end(), adapters.begin(), adapters.end());
  }
  for (const auto& [name, child] : children_) {
    const auto below = child->all_parameters();
    all.insert(all.end(), below.begin(), below.end());
  }
  if (const auto* tied = dynamic_cast<const nn::TiedHead*>(this)) {
    if (const auto head = tied->own_head()) {
      const auto own = head->all_parameters();
      all.insert(all.end(), own.begin(), own.end());
    }
  }
  return all;
}

void Module::initialize(const std::vector<std::string>* names) {
  const at::NoGradGuard no_grad;
  initialize_below("", names);
}

void Module::initialize_below(const std::string& path, const std::vector<std::string>* names) {
  const auto fill = [&](const std::string& name, const at::Tensor& tensor, const Init& init) {
    if (!init || tensor.is_meta()) return;
    if (names == nullptr || std::find(names->begin(), names->end(), path + name) != names->end()) init(tensor);
  };
  for (size_t i = 0; i < parameters_.size(); ++i)
    fill(parameters_[i].first, parameters_[i].second, parameter_inits_[i]);
  for (size_t i = 0; i < buffers_.size(); ++i) fill(buffers_[i].first, buffers_[i].second.tensor, buffer_inits_[i]);
  for (const auto& [name, child] : children_) child->initialize_below(path + name + ".", names);
}

namespace {

// A large weight is no more than address space until it has values: those of a file may take its place.
at::Tensor empty_weight(at::IntArrayRef shape, const ModuleOptions& options) {
  const auto kind = at::TensorOptions().device(options.device).dtype(options.dtype);
  const size_t bytes = static_cast<size_t>(c10::multiply_integers(shape)) * c10::elementSize(options.dtype);
  if (!options.device.is_cpu() || bytes < kOwnMapping) return at::empty(shape, kind);
  void* const data = memory::take_mapping(bytes);
  if (data == nullptr) return at::empty(shape, kind);
  return at::from_blob(
      data, shape, [bytes](void* data) { memory::give_mapping_back(data, bytes); }, kind);
}

}  // namespace

at::Tensor Module::parameter(std::string name, at::IntArrayRef shape, Init init) {
  at::Tensor tensor = empty_weight(shape, options);
  tensor.set_requires_grad(true);
  parameters_.emplace_back(std::move(name), tensor);
  parameter_inits_.push_back(std::move(init));
  return tensor;
}

at::Tensor Module::buffer(std::string name, at::IntArrayRef shape, c10::ScalarType dtype, Init init, bool persistent) {
  at::Tensor tensor = at::empty(shape, at::TensorOptions().device(options.device).dtype(dtype));
  buffers_.emplace_back(std::move(name), Buffer{tensor, persistent});
  buffer_inits_.push_back(std::move(init));
  return tensor;
}

namespace init {

Init zeros() {
  return [](const at::Tensor& tensor) { tensor.zero_(); };
}
Init ones() { return constant(1); }
Init constant(double value) {
  return [value](const at::Tensor& tensor) { tensor.fill_(value); };
}
Init normal(double std) {
  return [std](const at::Tensor& tensor) { tensor.normal_(0, std); };
}
Init uniform(double bound) {
  return [bound](const at::Tensor& tensor) { tensor.uniform_(-bound, bound); };
}
Init kaiming_normal() {
  return [](const at::Tensor& tensor) {
    const double fan_in = static_cast<double>(tensor.numel() / std::max<int64_t>(1, tensor.size(0)));
    tensor.normal_(0, std::sqrt(2 / fan_in));
  };
}

}  // namespace init

namespace {

std::map<std::string, ModuleMaker>& makers() {
  static std::map<std::string, ModuleMaker> all;
  return all;
}

using ModulePtr = c10::intrusive_ptr<Module>;

ModulePtr build(const std::string& kind, const std::string& config, std::optional<c10::Device> device,
                std::optional<c10::ScalarType> dtype) {
  const auto found = makers().find(kind);
  TORCH_CHECK(found != makers().end(), "there is no native network '", kind, "'");
  ModuleOptions options;
  if (device) options.device = *device;
  if (dtype) options.dtype = *dtype;
  TORCH_CHECK(c10::isFloatingType(options.dtype), "a network's dtype must be floating point, got ", options.dtype);
  return found->second(Config::parse(config), options);
}

ModulePtr make(const std::string& kind, const std::string& config, std::optional<c10::Device> device,
               std::optional<c10::ScalarType> dtype, bool initialize) {
  ModulePtr module = build(kind, config, device, dtype);
  if (initialize) module->initialize();
  return module;
}

double bytes_of(const Module& module) {
  double bytes = 0;
  for (const auto& [name, tensor] : module.parameters()) {
    if (tensor.defined()) bytes += static_cast<double>(tensor.nbytes());
  }
  for (const auto& [name, buffer] : module.buffers()) {
    if (buffer.tensor.defined()) bytes += static_cast<double>(buffer.tensor.nbytes());
  }
  for (const auto& [name, child] : module.children()) bytes += bytes_of(*child);
  return bytes;
}

std::tuple<std::vector<std::string>, std::vector<at::Tensor>> parameters(const ModulePtr& self) {
  std::tuple<std::vector<std::string>, std::vector<at::Tensor>> result;
  for (const auto& [name, tensor] : self->parameters()) {
    std::get<0>(result).push_back(name);
    std::get<1>(result).push_back(tensor);
  }
  return result;
}

std::tuple<std::vector<std::string>, std::vector<at::Tensor>, c10::List<bool>> buffers(const ModulePtr& self) {
  std::tuple<std::vector<std::string>, std::vector<at::Tensor>, c10::List<bool>> result;
  for (const auto& [name, buffer] : self->buffers()) {
    std::get<0>(result).push_back(name);
    std::get<1>(result).push_back(buffer.tensor);
    std::get<2>(result).push_back(buffer.persistent);
  }
  return result;
}

std::vector<std::string> children(const ModulePtr& self) {
  std::vector<std::string> names;
  for (const auto& [name, child] : self->children()) names.push_back(name);
  return names;
}

ModulePtr child(const ModulePtr& self, const std::string& name) {
  for (const auto& [candidate, child] : self->children()) {
    if (candidate == name) return child;
  }
  TORCH_CHECK(false, self->kind, " has no child '", name, "'");
}

}  // namespace

bool register_module_class() {
  static const auto registered = torch::class_<Module>("voxtorch", "Module");
  return true;
}

RegisteredModule::RegisteredModule(const char* kind, ModuleMaker maker) { makers()[kind] = maker; }

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // Builds a network. With initialize=False its memory is not filled: for weights that are about to be loaded.
  m.def(
      "module(str kind, str config, *, Device? device=None, ScalarType? dtype=None, bool initialize=True) -> "
      "__torch__.torch.classes.voxtorch.Module",
      make);
  // How much memory a network's parameters and buffers will take.
  m.def("module_bytes(str kind, str config, *, ScalarType? dtype=None) -> float",
        [](const std::string& kind, const std::string& config, std::optional<c10::ScalarType> dtype) {
          return bytes_of(*build(kind, config, c10::Device(c10::kMeta), dtype));
        });
  m.def("module_kind(__torch__.torch.classes.voxtorch.Module self) -> str",
        [](const ModulePtr& self) { return self->kind; });
  // Whether it has a forward pass that a hook may watch.
  m.def("module_is_block(__torch__.torch.classes.voxtorch.Module self) -> bool",
        [](const ModulePtr& self) { return dynamic_cast<const Block*>(self.get()) != nullptr; });
  m.def("module_parameters(__torch__.torch.classes.voxtorch.Module self) -> (str[] names, Tensor[] tensors)",
        parameters);
  m.def(
      "module_buffers(__torch__.torch.classes.voxtorch.Module self) -> (str[] names, Tensor[] tensors, bool[] "
      "persistent)",
      buffers);
  m.def("module_children(__torch__.torch.classes.voxtorch.Module self) -> str[]", children);
  m.def(
      "module_child(__torch__.torch.classes.voxtorch.Module self, str name) -> __torch__.torch.classes.voxtorch.Module",
      child);
  m.def("module_train(__torch__.torch.classes.voxtorch.Module self, bool mode=True) -> ()",
        [](const ModulePtr& self, bool mode) { self->train(mode); });
  m.def("module_training(__torch__.torch.classes.voxtorch.Module self) -> bool",
        [](const ModulePtr& self) { return self->training(); });
  // Fills the parameters and buffers with these full names with initial values.
  m.def("module_initialize(__torch__.torch.classes.voxtorch.Module self, str[] names) -> ()",
        [](const ModulePtr& self, const std::vector<std::string>& names) { self->initialize(&names); });
}

}  // namespace voxtorch

// The module tree of native networks, over at:: functions. Every parameter is made with an explicit device and dtype,
// so a network can be built on meta or straight in bfloat16. A class names its parts in its constructor, with the names
// that the published checkpoint has:
//
//   FeedForward::FeedForward(const ModuleOptions& options, int64_t dim, int64_t hidden)
//       : Module("FeedForward", options),
//         up(*child<Linear>("intermediate_dense", dim, hidden)),
//         down(*child<Linear>("output_dense", hidden, dim)) {}
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <torch/custom_class.h>

#include <atomic>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/config.h"

namespace voxtorch {

namespace nn {
class AdapterSlot;
}

// Fills a fresh tensor with its initial values.
using Init = std::function<void(const at::Tensor&)>;

struct ModuleOptions {
  c10::Device device = c10::kCPU;
  c10::ScalarType dtype = c10::kFloat;
};

class Module : public torch::CustomClassHolder {
 public:
  template <typename T>
  using Named = std::vector<std::pair<std::string, T>>;
  struct Buffer {
    at::Tensor tensor;
    bool persistent = true;
  };

  Module(std::string kind, const ModuleOptions& options) : kind(std::move(kind)), options(options) {}

  const std::string kind;
  const ModuleOptions options;

  const Named<at::Tensor>& parameters() const { return parameters_; }
  const Named<Buffer>& buffers() const { return buffers_; }
  const Named<c10::intrusive_ptr<Module>>& children() const { return children_; }

  // Everything below too.
  void train(bool mode);
  bool training() const { return training_.load(std::memory_order_relaxed); }
  // Where a layer takes adapters; null for all that cannot.
  virtual nn::AdapterSlot* adapters() { return nullptr; }
  // Parameters of this module and all below it, adapters too; what a forward pass reads.
  std::vector<at::Tensor> all_parameters() const;
  // Fills the parameters and buffers with initial values from the default generator, in the order of their definition;
  // only those named, where names are given.
  void initialize(const std::vector<std::string>* names = nullptr);

 protected:
  at::Tensor parameter(std::string name, at::IntArrayRef shape, Init init);
  // Its dtype is given, because buffers are often indices.
  at::Tensor buffer(std::string name, at::IntArrayRef shape, c10::ScalarType dtype, Init init, bool persistent = true);

  // Makes a child of type M with this module's device and dtype.
  template <typename M, typename... Arguments>
  M* child(std::string name, Arguments&&... arguments) {
    return adopt(std::move(name), c10::make_intrusive<M>(options, std::forward<Arguments>(arguments)...));
  }
  template <typename M>
  M* adopt(std::string name, c10::intrusive_ptr<M> made) {
    M* pointer = made.get();
    children_.emplace_back(std::move(name), std::move(made));
    return pointer;
  }

 private:
  void initialize_below(const std::string& path, const std::vector<std::string>* names);

  Named<at::Tensor> parameters_;
  Named<Buffer> buffers_;
  Named<c10::intrusive_ptr<Module>> children_;
  std::vector<Init> parameter_inits_;
  std::vector<Init> buffer_inits_;
  std::atomic<bool> training_{true};
};

// Operators that take a Module can be defined only once its class is known, and static data of different files comes in
// any order: so each file that sees Module first makes sure of it.
bool register_module_class();
namespace {
[[maybe_unused]] const bool module_class_is_registered = register_module_class();
}

// Children under the names 0, 1, 2, ...
template <typename M>
class ModuleList : public Module {
 public:
  explicit ModuleList(const ModuleOptions& options) : Module("ModuleList", options) {}

  template <typename... Arguments>
  M& add(Arguments&&... arguments) {
    items.push_back(child<M>(std::to_string(items.size()), std::forward<Arguments>(arguments)...));
    return *items.back();
  }

  M& append(c10::intrusive_ptr<M> made) {
    items.push_back(adopt(std::to_string(items.size()), std::move(made)));
    return *items.back();
  }

  M& operator[](size_t index) const { return *items[index]; }
  size_t size() const { return items.size(); }
  auto begin() const { return items.begin(); }
  auto end() const { return items.end(); }

  std::vector<M*> items;
};

// What `voxtorch::module(kind, ...)` can make. A network's file has one of these:
//   static const RegisteredModule wavlm("wavlm", make_module<WavLM>);
using ModuleMaker = c10::intrusive_ptr<Module> (*)(const Config& config, const ModuleOptions& options);
struct RegisteredModule {
  RegisteredModule(const char* kind, ModuleMaker maker);
};
template <typename M>
c10::intrusive_ptr<Module> make_module(const Config& config, const ModuleOptions& options) {
  return c10::make_intrusive<M>(options, config);
}

// The network after the handle that an operator was given; throws when it is of another kind.
template <typename M>
M& network(const c10::intrusive_ptr<Module>& module, const char* op) {
  M* found = dynamic_cast<M*>(module.get());
  TORCH_CHECK(found != nullptr, op, " was given a module of kind ", module->kind);
  return *found;
}

namespace init {
Init zeros();
Init ones();
Init constant(double value);
Init normal(double std);
Init uniform(double bound);
Init kaiming_normal();  // fan in, gain of a rectifier, as torch.nn.init.kaiming_normal_
}  // namespace init

}  // namespace voxtorch

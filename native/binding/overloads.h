// A call's arguments, the overload that takes them, and the stack that it is called with.
#pragma once

#include <ATen/core/stack.h>

#include "binding/operators.h"

namespace voxtorch {

// The arguments of a call, by place and by name.
struct Given {
  std::vector<Reader> positional;
  std::vector<std::pair<std::string, Reader>> keywords;
};
void split_arguments(Reader cells, Given& given);

// Where each schema argument comes from: a cell, or nullptr for its default.
constexpr size_t kMaxArguments = 64;
struct Binding {
  const Reader* cells[kMaxArguments];
  bool gathered = false;
};

// The first overload that takes the arguments; throws a sentence that lists the forms there are.
const Overload& choose(const Operator& op, const Given& given, const Slab& slab, Binding& binding);

// Everything that a network holds.
std::vector<at::Tensor> parameters_of(const c10::IValue& network);

// Fills the stack. `keep` is called with each tensor and how it is used.
template <typename Keep>
void build_stack(const Overload& overload, const Given& given, const Binding& binding, const Slab& slab,
                 const std::optional<c10::Device>& default_device, torch::jit::Stack& stack, Keep keep) {
  stack.reserve(overload.arguments.size());
  for (size_t i = 0; i < overload.arguments.size(); ++i) {
    const ArgumentSpec& spec = overload.arguments[i];
    if (binding.gathered && int(i) == overload.gather_list) {
      std::vector<int64_t> values;
      for (size_t j = i; j < given.positional.size(); ++j) values.push_back(read_int(given.positional[j]));
      stack.emplace_back(std::move(values));
      continue;
    }
    stack.push_back(binding.cells[i] != nullptr ? convert(spec, *binding.cells[i], slab) : spec.default_value);
    c10::IValue& value = stack.back();
    if (i == overload.device && overload.factory && default_device && value.isNone()) value = *default_device;
    const Use use = spec.writes ? Use::kWrite : Use::kRead;
    if (spec.is(Kind::kTensor)) {
      if (value.isTensor())
        keep(value.toTensor(), use);
      else if (value.isNone() && !spec.optional)
        value = at::Tensor();
    } else if (spec.is_list_of(Kind::kTensor) && value.isList()) {
      for (const c10::IValue& element : value.toListRef()) {
        if (element.isTensor()) keep(element.toTensor(), use);
      }
    } else if (spec.is(Kind::kModule) && value.isObject()) {
      for (const at::Tensor& tensor : parameters_of(value)) keep(tensor, Use::kRead);
    }
  }
}

// What an operator writes in lists of tensors. Those of ATen that do (`_foreach_…_`, `_fused_…_`) leave the versions of
// their outputs unchanged, although values derived from a parameter are out of date: `changed` increments them.
std::vector<at::Tensor> written_lists(const c10::FunctionSchema& schema, const torch::jit::Stack& stack);
void changed(const std::vector<at::Tensor>& tensors);

// What an operator left on the stack, as one value. Dtypes are numbers there.
std::optional<c10::IValue> take_result(const c10::FunctionSchema& schema, torch::jit::Stack& stack);

}  // namespace voxtorch

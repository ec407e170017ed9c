#include "binding/overloads.h"

#include <algorithm>

#include "core/module.h"
#include "core/runtime/names.h"

namespace voxtorch {

namespace {

bool all_whole_numbers(const std::vector<Reader>& cells, size_t from) {
  if (from >= cells.size()) return false;
  for (size_t i = from; i < cells.size(); ++i) {
    const Tag tag = cells[i].tag();
    if (tag != Tag::kNumber && tag != Tag::kBigInt) return false;
  }
  return true;
}

bool bind(const Overload& overload, const Given& given, const Slab& slab, bool relaxed, Binding& binding) {
  const size_t count = overload.arguments.size();
  if (count > kMaxArguments) return false;
  std::fill(binding.cells, binding.cells + count, nullptr);
  binding.gathered = false;
  size_t positional = given.positional.size();
  if (positional > overload.positional ||
      (overload.gather_list >= 0 && positional == size_t(overload.gather_list) + 1 &&
       given.positional.back().tag() == Tag::kNumber && overload.arguments[overload.gather_list].list_size == 0)) {
    if (overload.gather_list < 0 || !all_whole_numbers(given.positional, overload.gather_list)) return false;
    binding.gathered = true;
    positional = overload.gather_list;
  }
  for (size_t i = 0; i < positional; ++i) {
    if (!matches(overload.arguments[i], given.positional[i], slab, relaxed)) return false;
    binding.cells[i] = &given.positional[i];
  }
  for (const auto& [name, cell] : given.keywords) {
    size_t index = 0;
    while (index < count && overload.arguments[index].name != name) ++index;
    if (index == count || binding.cells[index] != nullptr) return false;
    if (!matches(overload.arguments[index], cell, slab, relaxed)) return false;
    binding.cells[index] = &cell;
  }
  for (size_t i = 0; i < count; ++i) {
    if (binding.cells[i] == nullptr && !overload.arguments[i].has_default &&
        !(binding.gathered && i == size_t(overload.gather_list))) {
      return false;
    }
  }
  return true;
}

std::string describe_call(const Operator& op, const Given& given, const Slab& slab) {
  std::string text = "no form of '" + op.name.substr(op.name.find("::") + 2) + "' takes (";
  bool first = true;
  for (const Reader& cell : given.positional) {
    text += (first ? "" : ", ") + describe(cell, slab);
    first = false;
  }
  for (const auto& [name, cell] : given.keywords) {
    text += (first ? "" : ", ") + name + ": " + describe(cell, slab);
    first = false;
  }
  text += "); it has:";
  for (const Overload& overload : op.overloads) {
    if (!is_out(overload)) text += "\n  " + c10::toString(overload.handle.schema());
  }
  return text;
}

}  // namespace

void split_arguments(Reader cells, Given& given) {
  while (!cells.done()) {
    const Reader here = cells;
    cells.skip();
    if (here.tag() == Tag::kKeyword) {
      given.keywords.emplace_back(here.interned(here.value()), here.inside());
    } else {
      given.positional.push_back(here);
    }
  }
}

const Overload& choose(const Operator& op, const Given& given, const Slab& slab, Binding& binding) {
  for (const bool relaxed : {false, true}) {
    for (const Overload& overload : op.overloads) {
      if (bind(overload, given, slab, relaxed, binding)) return overload;
    }
  }
  for (const Reader& cell : given.positional) {
    if (cell.tag() == Tag::kTensor) read_tensor(cell, slab);  // a disposed tensor is the more likely mistake
  }
  fail(ErrorKind::kArguments, describe_call(op, given, slab));
}

std::vector<at::Tensor> parameters_of(const c10::IValue& network) {
  return network.toCustomClass<Module>()->all_parameters();
}

std::vector<at::Tensor> written_lists(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  std::vector<at::Tensor> result;
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    const c10::AliasInfo* const alias = schema.arguments()[i].alias_info();
    if (alias == nullptr || !alias->isWrite() || !stack[i].isTensorList()) continue;
    for (const at::Tensor& tensor : stack[i].toTensorList()) result.push_back(tensor);
  }
  return result;
}

void changed(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined() && !tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
  }
}

std::optional<c10::IValue> take_result(const c10::FunctionSchema& schema, torch::jit::Stack& stack) {
  if (stack.empty()) return std::nullopt;
  if (stack.size() > 1) return c10::IValue(c10::ivalue::Tuple::create(std::move(stack)));
  c10::IValue value = std::move(stack[0]);
  stack.clear();
  if (value.isInt() && schema.returns()[0].real_type()->kind() == c10::TypeKind::ScalarTypeType) {
    return c10::IValue(std::string(scalar_type_name(static_cast<c10::ScalarType>(value.toInt()))));
  }
  return value;
}

}  // namespace voxtorch

#include "binding/operators.h"

#include <algorithm>
#include <set>

namespace voxtorch {
namespace {

struct Registry {
  std::mutex mutex;
  std::unordered_map<std::string, std::unique_ptr<Operator>> operators;
  std::unordered_map<std::string, std::set<std::string>> names;  // overloads by operator name
};

Registry& registry() {
  static Registry* instance = new Registry();
  return *instance;
}

ArgumentSpec make_argument_spec(const c10::Argument& argument) {
  using c10::TypeKind;
  ArgumentSpec spec;
  spec.name = argument.name();
  spec.keyword_only = argument.kwarg_only();
  spec.writes = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
  if (argument.N()) spec.list_size = *argument.N();
  if (argument.default_value()) {
    spec.has_default = true;
    spec.default_value = *argument.default_value();
  }
  // real_type tells ScalarType, Layout and SymInt from the int that they are stored as.
  c10::TypePtr type = argument.real_type();
  if (auto optional = type->cast<c10::OptionalType>()) {
    spec.optional = true;
    type = optional->getElementType();
  }
  const auto of = [](const c10::TypePtr& t) {
    switch (t->kind()) {
      case TypeKind::TensorType:
        return Kind::kTensor;
      case TypeKind::IntType:
      case TypeKind::SymIntType:
        return Kind::kInt;
      case TypeKind::FloatType:
      case TypeKind::SymFloatType:
        return Kind::kFloat;
      case TypeKind::BoolType:
      case TypeKind::SymBoolType:
        return Kind::kBool;
      case TypeKind::NumberType:
        return Kind::kScalar;
      case TypeKind::ScalarTypeType:
        return Kind::kScalarType;
      case TypeKind::LayoutType:
        return Kind::kLayout;
      case TypeKind::MemoryFormatType:
        return Kind::kMemoryFormat;
      case TypeKind::DeviceObjType:
        return Kind::kDevice;
      case TypeKind::StringType:
        return Kind::kString;
      case TypeKind::GeneratorType:
        return Kind::kGenerator;
      case TypeKind::ClassType:
        return t->str() == kModuleType ? Kind::kModule : Kind::kUnsupported;
      default:
        return Kind::kUnsupported;
    }
  };
  if (auto list = type->cast<c10::ListType>()) {
    c10::TypePtr element = list->getElementType();
    if (auto optional = element->cast<c10::OptionalType>()) {
      spec.kind = of(optional->getElementType()) == Kind::kTensor ? Kind::kOptionalTensorList : Kind::kUnsupported;
      return spec;
    }
    switch (of(element)) {
      case Kind::kTensor:
        spec.kind = Kind::kTensorList;
        break;
      case Kind::kInt:
        spec.kind = Kind::kIntList;
        break;
      case Kind::kFloat:
        spec.kind = Kind::kFloatList;
        break;
      case Kind::kBool:
        spec.kind = Kind::kBoolList;
        break;
      case Kind::kScalar:
        spec.kind = Kind::kScalarList;
        break;
      case Kind::kString:
        spec.kind = Kind::kStringList;
        break;
      default:
        spec.kind = Kind::kUnsupported;
    }
    return spec;
  }
  spec.kind = of(type);
  return spec;
}

Overload make_overload(c10::OperatorHandle handle) {
  Overload overload(handle);
  overload.factory = true;
  int lists = 0, others = 0;
  for (const c10::Argument& argument : handle.schema().arguments()) {
    ArgumentSpec spec = make_argument_spec(argument);
    const size_t index = overload.arguments.size();
    if (!spec.keyword_only) overload.positional = index + 1;
    if (spec.kind == Kind::kTensor || spec.kind == Kind::kTensorList || spec.kind == Kind::kOptionalTensorList)
      overload.factory = false;
    if (spec.kind == Kind::kDevice && spec.name == "device") overload.device = index;
    overload.writes |= spec.writes;
    if (!spec.keyword_only && spec.name != "self") {
      if (spec.kind == Kind::kIntList && spec.list_size == 0 && lists++ == 0)
        overload.gather_list = static_cast<int>(index);
      else
        ++others;
    }
    overload.arguments.push_back(std::move(spec));
  }
  if (others > 0) overload.gather_list = -1;
  const auto& returns = handle.schema().returns();
  const auto& specs = overload.arguments;
  overload.guard = guard_of(handle.schema().name());
  const bool one_tensor_out =
      overload.guard == nullptr && returns.size() == 1 && returns[0].type()->kind() == c10::TypeKind::TensorType;
  const auto is_plain_tensor = [&](size_t i) {
    return specs[i].kind == Kind::kTensor && !specs[i].optional && !specs[i].keyword_only;
  };
  if (one_tensor_out && !overload.writes && !specs.empty() && is_plain_tensor(0)) {
    if (specs.size() == 1) overload.unary = handle.typed<at::Tensor(const at::Tensor&)>();
    if (specs.size() == 2 && is_plain_tensor(1))
      overload.binary = handle.typed<at::Tensor(const at::Tensor&, const at::Tensor&)>();
    if (specs.size() == 3 && is_plain_tensor(1) && specs[2].kind == Kind::kScalar && specs[2].keyword_only &&
        specs[2].has_default) {
      overload.scaled_binary = handle.typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Scalar&)>();
    }
  }
  return overload;
}

bool is_supported(const Overload& overload) {
  // Arguments of kinds that JavaScript cannot give are fine while their defaults serve.
  return std::all_of(overload.arguments.begin(), overload.arguments.end(), [](const ArgumentSpec& spec) {
    return spec.kind != Kind::kUnsupported || spec.has_default || spec.optional;
  });
}

// Forms that Python does not have either: scripts/exclusions.json says why, under hiddenForms.
bool is_superseded(const std::string& name, const std::string& overload) {
  return name == "aten::stft" && overload.empty();
}

}  // namespace

bool is_out(const Overload& overload) {
  return std::any_of(overload.arguments.begin(), overload.arguments.end(),
                     [](const ArgumentSpec& spec) { return spec.keyword_only && spec.writes; });
}
Operator* operator_named(const std::string& name) {
  Registry& all = registry();
  std::lock_guard<std::mutex> lock(all.mutex);
  auto found = all.operators.find(name);
  if (found != all.operators.end()) return found->second.get();
  auto& dispatcher = c10::Dispatcher::singleton();
  if (all.names.empty()) {
    for (const auto& entry : dispatcher.getAllOpNames()) all.names[entry.name].insert(entry.overload_name);
  }
  auto listed = all.names.find(name);
  if (listed == all.names.end()) {
    throw BindingError(ErrorKind::kNotImplemented, "there is no operator '" + name + "' in the loaded libtorch");
  }
  auto op = std::make_unique<Operator>();
  op->name = name;
  for (const std::string& overload_name : listed->second) {
    auto handle = dispatcher.findSchema({name, overload_name});
    if (!handle || is_superseded(name, overload_name)) continue;
    Overload overload = make_overload(*handle);
    if (is_supported(overload)) op->overloads.push_back(std::move(overload));
  }
  // out= variants last, so that they are tried only when `out` is given; before them those that gather numbers given by
  // place into a list, so that hsplit(2) is two sections as in Python, and not a cut at 2.
  const auto rank = [](const Overload& overload) { return is_out(overload) ? 2 : overload.gather_list >= 0 ? 1 : 0; };
  std::stable_sort(op->overloads.begin(), op->overloads.end(),
                   [&](const Overload& a, const Overload& b) { return rank(a) < rank(b); });
  // The first overload that would take the tensors is the one that the general path would choose.
  for (const Overload& overload : op->overloads) {
    const size_t required = std::count_if(overload.arguments.begin(), overload.arguments.end(),
                                          [](const ArgumentSpec& spec) { return !spec.has_default; });
    const auto takes = [&](size_t tensors) {
      if (overload.positional < tensors || required > tensors) return false;
      return std::all_of(overload.arguments.begin(), overload.arguments.begin() + tensors,
                         [](const ArgumentSpec& spec) { return spec.kind == Kind::kTensor; });
    };
    if (op->unary == nullptr && takes(1)) op->unary = &overload;
    if (op->binary == nullptr && takes(2)) op->binary = &overload;
  }
  if (name == "aten::slice" && !op->overloads.empty() && op->overloads[0].handle.schema().overload_name() == "Tensor") {
    Overload& slice = op->overloads[0];
    slice.slice = slice.handle.typed<at::Tensor(const at::Tensor&, int64_t, std::optional<c10::SymInt>,
                                                std::optional<c10::SymInt>, c10::SymInt)>();
    op->slice = &slice;
  }
  if (op->unary != nullptr && !op->unary->unary) op->unary = nullptr;
  if (op->binary != nullptr && !op->binary->binary && !op->binary->scaled_binary) op->binary = nullptr;
  return (all.operators[name] = std::move(op)).get();
}
namespace {

// resolve(name): the operator's number, or status 1.
napi_value resolve(napi_env env, napi_callback_info info) {
  Environment& self = *Environment::of(env);
  napi_value result = nullptr;
  self.guarded("", [&] {
    self.operators.push_back(operator_named(text_argument(env, info)));
    result = number(env, double(self.operators.size() - 1));
  });
  return result;
}

// returnNames(operator, overload): the names of the results, or an empty array.
napi_value return_names(napi_env env, napi_callback_info info) {
  Environment& self = *Environment::of(env);
  size_t count = 2;
  napi_value arguments[2];
  napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr);
  double op = -1, overload = -1;
  napi_get_value_double(env, arguments[0], &op);
  napi_get_value_double(env, arguments[1], &overload);
  std::vector<std::string> names;
  if (!(op >= 0) || op >= double(self.operators.size())) return texts(env, names);
  const Operator& found = *self.operators[static_cast<size_t>(op)];
  if (!(overload >= 0) || overload >= double(found.overloads.size())) return texts(env, names);
  for (const c10::Argument& result : found.overloads[static_cast<size_t>(overload)].handle.schema().returns()) {
    if (!result.name().empty()) names.push_back(result.name());
  }
  return texts(env, names);
}

// schemas(): every operator schema in the loaded libtorch, as text; the generator's input.
napi_value schemas(napi_env env, napi_callback_info) {
  std::vector<std::string> found;
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    if (auto handle = dispatcher.findSchema(name)) found.push_back(c10::toString(handle->schema()));
  }
  std::sort(found.begin(), found.end());
  return texts(env, found);
}

}  // namespace

void export_operators(napi_env env, napi_value exports) {
  export_function(env, exports, "resolve", resolve);
  export_function(env, exports, "returnNames", return_names);
  export_function(env, exports, "schemas", schemas);
}

}  // namespace voxtorch

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

Kind kind_of(const c10::TypePtr& type) {
  using c10::TypeKind;
  switch (type->kind()) {
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
      return type->str() == kModuleType ? Kind::kModule : Kind::kUnsupported;
    default:
      return Kind::kUnsupported;
  }
}

ArgumentSpec make_argument_spec(const c10::Argument& argument) {
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
  const auto list = type->cast<c10::ListType>();
  if (!list) {
    spec.kind = kind_of(type);
    return spec;
  }
  spec.list = true;
  type = list->getElementType();
  if (auto optional = type->cast<c10::OptionalType>()) {
    spec.optional_elements = true;
    type = optional->getElementType();
  }
  const Kind kind = kind_of(type);
  const bool listed =
      kind == Kind::kTensor || (!spec.optional_elements && (kind <= Kind::kScalar || kind == Kind::kString));
  spec.kind = listed ? kind : Kind::kUnsupported;
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
    if (spec.kind == Kind::kTensor) overload.factory = false;
    if (spec.is(Kind::kDevice) && spec.name == "device") overload.device = index;
    overload.writes |= spec.writes;
    if (!spec.keyword_only && spec.name != "self") {
      if (spec.is_list_of(Kind::kInt) && spec.list_size == 0 && lists++ == 0)
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
  // A result that is alias of an argument and not written to is a view of it.
  const bool is_view = !overload.writes && !returns.empty() && returns[0].alias_info() != nullptr;
  overload.width = width_of(handle.schema(), is_view, overload.factory);
  const bool one_tensor_out =
      overload.guard == nullptr && returns.size() == 1 && returns[0].type()->kind() == c10::TypeKind::TensorType;
  const auto is_plain_tensor = [&](size_t i) {
    return specs[i].is(Kind::kTensor) && !specs[i].optional && !specs[i].keyword_only;
  };
  if (one_tensor_out && !overload.writes && !specs.empty() && is_plain_tensor(0)) {
    if (specs.size() == 1) overload.unary = handle.typed<at::Tensor(const at::Tensor&)>();
    if (specs.size() == 2 && is_plain_tensor(1))
      overload.binary = handle.typed<at::Tensor(const at::Tensor&, const at::Tensor&)>();
    if (specs.size() == 3 && is_plain_tensor(1) && specs[2].is(Kind::kScalar) && specs[2].keyword_only &&
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
    fail(ErrorKind::kNotImplemented, "there is no operator '" + name + "' in the loaded libtorch");
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
                         [](const ArgumentSpec& spec) { return spec.is(Kind::kTensor); });
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
Napi::Value resolve(Environment& self, const Napi::CallbackInfo& info) {
  double number = -1;
  self.guarded("", [&] {
    self.operators.push_back(operator_named(info[0].As<Napi::String>()));
    number = double(self.operators.size() - 1);
  });
  return Napi::Number::New(info.Env(), number);
}

// returnNames(operator, overload): the names of the results, or an empty array.
Napi::Value return_names(Environment& self, const Napi::CallbackInfo& info) {
  const double op = number(info, 0), overload = number(info, 1);
  std::vector<std::string> names;
  if (op >= 0 && op < double(self.operators.size())) {
    const auto& overloads = self.operators[static_cast<size_t>(op)]->overloads;
    if (overload >= 0 && overload < double(overloads.size())) {
      for (const c10::Argument& result : overloads[static_cast<size_t>(overload)].handle.schema().returns()) {
        if (!result.name().empty()) names.push_back(result.name());
      }
    }
  }
  return texts(info.Env(), names);
}

}  // namespace

void export_operators(Napi::Object exports) {
  export_function<resolve>(exports, "resolve");
  export_function<return_names>(exports, "returnNames");
}

}  // namespace voxtorch

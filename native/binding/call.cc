// Calling an operator: find the overload whose schema takes the arguments, convert them, call boxed, write the results.
#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <set>

#include "binding/environment.h"
#include "binding/guards.h"
#include "core/module.h"

namespace voxtorch {

struct Overload {
  explicit Overload(c10::OperatorHandle handle) : handle(std::move(handle)) {}
  c10::OperatorHandle handle;
  std::vector<ArgumentSpec> arguments;
  size_t positional = 0;     // arguments that may be given by place
  size_t device = SIZE_MAX;  // where a factory function's `device` is
  int gather_list = -1;      // the list argument that stands for all numbers given by place, as in x.view(2, 3)
  bool factory = false;      // takes no tensor
  bool writes = false;
  Guard guard = nullptr;
  // Operators on one or two tensors are called unboxed: for a small tensor, boxing costs as much as the work.
  std::optional<c10::TypedOperatorHandle<at::Tensor(const at::Tensor&)>> unary;
  std::optional<c10::TypedOperatorHandle<at::Tensor(const at::Tensor&, const at::Tensor&)>> binary;
  std::optional<c10::TypedOperatorHandle<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Scalar&)>>
      scaled_binary;
  // And slicing, which indexing is made of.
  std::optional<c10::TypedOperatorHandle<at::Tensor(const at::Tensor&, int64_t, std::optional<c10::SymInt>,
                                                    std::optional<c10::SymInt>, c10::SymInt)>>
      slice;
};

struct Operator {
  std::string name;
  std::vector<Overload> overloads;
  const Overload* unary = nullptr;  // what one tensor, or two, and nothing else select
  const Overload* binary = nullptr;
  const Overload* slice = nullptr;
};

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

bool is_out(const Overload& overload) {
  return std::any_of(overload.arguments.begin(), overload.arguments.end(),
                     [](const ArgumentSpec& spec) { return spec.keyword_only && spec.writes; });
}

bool is_supported(const Overload& overload) {
  // Arguments of kinds that JavaScript cannot give are fine while their defaults serve.
  return std::all_of(overload.arguments.begin(), overload.arguments.end(), [](const ArgumentSpec& spec) {
    return spec.kind != Kind::kUnsupported || spec.has_default || spec.optional;
  });
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
    if (!handle) continue;
    Overload overload = make_overload(*handle);
    if (is_supported(overload)) op->overloads.push_back(std::move(overload));
  }
  // out= variants last, so that they are tried only when `out` is given.
  std::stable_sort(op->overloads.begin(), op->overloads.end(),
                   [](const Overload& a, const Overload& b) { return is_out(a) < is_out(b); });
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

struct Given {
  std::vector<Reader> positional;
  std::vector<std::pair<std::string, Reader>> keywords;
};

void split_arguments(Reader cells, Given& given) {
  while (!cells.done()) {
    const Reader here = cells;
    cells.skip();
    if (here.tag() == Tag::kKeyword) {
      const double id = here.value();
      if (!(id >= 0) || id >= double(here.strings->size()))
        throw BindingError(ErrorKind::kArguments, "unknown keyword");
      given.keywords.emplace_back((*here.strings)[static_cast<size_t>(id)], here.inside());
    } else {
      given.positional.push_back(here);
    }
  }
}

// Where each schema argument comes from: a cell, or nullptr for its default.
constexpr size_t kMaxArguments = 64;
struct Binding {
  const Reader* cells[kMaxArguments];
  bool gathered = false;
};

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

const Overload& choose(const Operator& op, const Given& given, const Slab& slab, Binding& binding) {
  for (const bool relaxed : {false, true}) {
    for (const Overload& overload : op.overloads) {
      if (bind(overload, given, slab, relaxed, binding)) return overload;
    }
  }
  for (const Reader& cell : given.positional) {
    if (cell.tag() == Tag::kTensor) read_tensor(cell, slab);  // a disposed tensor is the likelier mistake
  }
  throw BindingError(ErrorKind::kArguments, describe_call(op, given, slab));
}

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
    if (spec.kind == Kind::kTensor) {
      if (value.isTensor())
        keep(value.toTensor(), spec.writes ? Use::kWrite : Use::kRead);
      else if (value.isNone() && !spec.optional)
        value = at::Tensor();
    } else if (spec.kind == Kind::kTensorList && value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) keep(tensor, spec.writes ? Use::kWrite : Use::kRead);
    } else if (spec.kind == Kind::kModule && value.isObject()) {
      for (const at::Tensor& tensor : value.toCustomClass<Module>()->all_parameters()) keep(tensor, Use::kRead);
    } else if (spec.kind == Kind::kOptionalTensorList && value.isList()) {
      for (const c10::IValue& element : value.toListRef()) {
        if (element.isTensor()) keep(element.toTensor(), Use::kRead);
      }
    }
  }
}

void check_free(const at::Tensor& tensor, Use use) {
  if (!tensor.defined() || !BusyTable::instance().conflicts(tensor, use)) return;
  throw BindingError(ErrorKind::kBusy,
                     use == Use::kWrite
                         ? "a queued job still uses the memory that this call would change; await its promise first"
                         : "a queued job is changing the memory that this call would read; await its promise first");
}

// The handle of the argument that an in-place operator returned, or 0.
double same_argument(const Overload& overload, const Given& given, const Binding& binding, const Slab& slab,
                     const c10::IValue& result) {
  if (!overload.writes || !result.isTensor()) return 0;
  for (size_t i = 0; i < overload.arguments.size(); ++i) {
    const Reader* cell = binding.cells[i];
    if (!overload.arguments[i].writes || cell == nullptr || cell->tag() != Tag::kTensor) continue;
    const c10::IValue* value = slab.find(cell->value());
    if (value != nullptr && value->isTensor() && value->toTensor().is_same(result.toTensor())) return cell->value();
  }
  return 0;
}

// What an operator left on the stack, as one value. Dtypes are numbers there.
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

Operator& requested(Environment& self) {
  const double id = self.header(Environment::kOperator);
  if (!(id >= 0) || id >= double(self.operators.size()))
    throw BindingError(ErrorKind::kArguments, "unknown operator number");
  return *self.operators[static_cast<size_t>(id)];
}

bool call_slice(Environment& self, const Operator& op) {
  Reader cells = self.arguments();
  if (cells.end - cells.at < 4 || cells.end - cells.at > 10 || cells.tag() != Tag::kTensor ||
      BusyTable::instance().any())
    return false;
  const c10::IValue* source = self.slab.find(cells.value());
  if (source == nullptr || !source->isTensor()) return false;
  std::optional<c10::SymInt> numbers[4];
  for (size_t i = 0; i < 4; ++i) {
    cells.at += 2;
    if (cells.done()) break;
    if (cells.tag() == Tag::kNumber && is_integral(cells))
      numbers[i] = c10::SymInt(static_cast<int64_t>(cells.value()));
    else if (cells.tag() != Tag::kNull || i == 0 || i == 3)
      return false;
  }
  if (!numbers[0]) return false;
  at::Tensor result;
  {
    ContextGuard guard(self.context());
    result = op.slice->slice->call(source->toTensor(), numbers[0]->expect_int(), std::move(numbers[1]),
                                   std::move(numbers[2]), numbers[3] ? *numbers[3] : c10::SymInt(1));
  }
  self.results().cell(Tag::kTensor, self.slab.add(c10::IValue(std::move(result)), self.scope()));
  return true;
}

// One or two live tensors and nothing else: the common case of a small operator. False when it is another case.
bool call_unboxed(Environment& self, const Operator& op) {
  const size_t begin = static_cast<size_t>(self.header(Environment::kBegin));
  const size_t count = static_cast<size_t>(self.header(Environment::kEnd)) - begin;
  if (op.slice != nullptr) return call_slice(self, op);
  const Overload* overload = count == 2 ? op.unary : count == 4 ? op.binary : nullptr;
  if (overload == nullptr || begin < kHeaderDoubles || begin + 4 > self.capacity || BusyTable::instance().any())
    return false;
  const double* cells = self.buffer + begin;
  const c10::IValue* values[2] = {nullptr, nullptr};
  for (size_t i = 0; i < count; i += 2) {
    if (cells[i] != double(static_cast<int>(Tag::kTensor))) return false;
    values[i / 2] = self.slab.find(cells[i + 1]);
    if (values[i / 2] == nullptr || !values[i / 2]->isTensor()) return false;
  }
  at::Tensor result;
  {
    ContextGuard guard(self.context());
    // The slab cannot change meanwhile: no operator calls JavaScript on this thread.
    const at::Tensor& first = values[0]->toTensor();
    if (count == 2) {
      result = overload->unary->call(first);
    } else if (overload->binary) {
      result = overload->binary->call(first, values[1]->toTensor());
    } else {
      result =
          overload->scaled_binary->call(first, values[1]->toTensor(), overload->arguments[2].default_value.toScalar());
    }
  }
  if (!result.defined()) {
    self.results().cell(Tag::kNull, 0);
    return true;
  }
  self.results().cell(Tag::kTensor, self.slab.add(c10::IValue(std::move(result)), self.scope()));
  return true;
}

void call_boxed(Environment& self, Operator& op) {
  // Reused, because vectors made for each call cost more than the argument checks.
  static thread_local Given given;
  static thread_local torch::jit::Stack stack;
  struct Cleared {
    ~Cleared() { stack.clear(); }
  } cleared;
  given.positional.clear();
  given.keywords.clear();
  split_arguments(self.arguments(), given);
  Binding binding;
  const Context context = self.context();
  const Overload& overload = choose(op, given, self.slab, binding);
  const bool busy = BusyTable::instance().any();
  build_stack(overload, given, binding, self.slab, context.device, stack, [&](const at::Tensor& tensor, Use use) {
    if (busy) check_free(tensor, use);
  });
  {
    ContextGuard guard(context);
    if (overload.guard != nullptr) overload.guard(overload.handle.schema(), stack);
    overload.handle.callBoxed(stack);
  }
  self.header(Environment::kOverload) = double(&overload - op.overloads.data());
  const double same = stack.size() == 1 ? same_argument(overload, given, binding, self.slab, stack[0]) : 0;
  if (same != 0) {
    self.results().cell(Tag::kSame, same);
  } else if (auto result = take_result(overload.handle.schema(), stack)) {
    self.write_result(std::move(*result), self.scope());
  } else {
    self.results().cell(Tag::kUndefined, 0);
  }
}

napi_value call(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  const char* name = "";
  self.guarded(name, [&] {
    Operator& op = requested(self);
    name = op.name.c_str();
    if (!call_unboxed(self, op)) call_boxed(self, op);
  });
  return nullptr;
}

class OperatorJob : public QueuedJob {
 public:
  OperatorJob(c10::OperatorHandle handle, Guard guard) : handle(std::move(handle)), guard(guard) {}
  c10::OperatorHandle handle;
  Guard guard;
  torch::jit::Stack stack;
  double same = 0;
  bool writes = false;
  bool empty = false;  // it returns nothing

  bool repeatable() const override { return !writes; }

 protected:
  c10::IValue work() override {
    // A copy, because the call eats its stack, and out of memory is tried twice.
    torch::jit::Stack running = stack;
    // Here and not when queued: an earlier job may change what is checked.
    if (guard != nullptr) guard(handle.schema(), running);
    handle.callBoxed(running);
    stack.clear();
    empty = running.empty();
    if (same != 0 || empty) return c10::IValue();
    return *take_result(handle.schema(), running);
  }
};

// The fused and multi-tensor kernels of optimisers: elementwise, so their work is known from the sizes.
bool is_light(const Operator& op, const torch::jit::Stack& stack) {
  if (op.name.rfind("aten::_fused_", 0) != 0 && op.name.rfind("aten::_foreach_", 0) != 0) return false;
  int64_t elements = 0;
  const auto count = [&](const at::Tensor& tensor) {
    elements += tensor.is_cpu() ? tensor.numel() : kLightElements + 1;
    return elements <= kLightElements;
  };
  for (const c10::IValue& value : stack) {
    if (value.isTensor() && value.toTensor().defined() && !count(value.toTensor())) return false;
    if (!value.isTensorList()) continue;
    for (const at::Tensor& tensor : value.toTensorList()) {
      if (!count(tensor)) return false;
    }
  }
  return true;
}

napi_value call_queued(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("", [&] {
    Operator& op = requested(self);
    Given given;
    split_arguments(self.arguments(), given);
    Binding binding;
    const Overload& overload = choose(op, given, self.slab, binding);
    auto job = std::make_shared<OperatorJob>(overload.handle, overload.guard);
    job->name = op.name;
    job->writes = overload.writes;
    build_stack(overload, given, binding, self.slab, self.context().device, job->stack,
                [&](const at::Tensor& tensor, Use use) { job->claim(tensor, use); });
    self.header(Environment::kOverload) = double(&overload - op.overloads.data());
    const auto& returns = overload.handle.schema().returns();
    if (returns.size() == 1 && returns[0].alias_info() != nullptr && returns[0].alias_info()->isWrite()) {
      for (size_t i = 0; i < overload.arguments.size() && job->same == 0; ++i) {
        const Reader* cell = binding.cells[i];
        if (overload.arguments[i].writes && cell != nullptr && cell->tag() == Tag::kTensor) job->same = cell->value();
      }
    }
    job->light = is_light(op, job->stack);
    self.submit(std::move(job));
  });
  return nullptr;
}

std::string read_text(napi_env env, napi_value value) {
  size_t length = 0;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) {
    throw BindingError(ErrorKind::kArguments, "expected a string");
  }
  std::string text(length, '\0');
  napi_get_value_string_utf8(env, value, text.data(), length + 1, &length);
  return text;
}

napi_value number(napi_env env, double value) {
  napi_value result;
  napi_create_double(env, value, &result);
  return result;
}

// resolve(name): the operator's number, or status 1.
napi_value resolve(napi_env env, napi_callback_info info) {
  Environment& self = *Environment::of(env);
  size_t count = 1;
  napi_value argument;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  napi_value result = nullptr;
  self.guarded("", [&] {
    Operator* op = operator_named(read_text(env, argument));
    self.operators.push_back(op);
    result = number(env, double(self.operators.size() - 1));
  });
  return result;
}

// intern(text): the number by which cells name a string.
napi_value intern(napi_env env, napi_callback_info info) {
  Environment& self = *Environment::of(env);
  size_t count = 1;
  napi_value argument;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  napi_value result = nullptr;
  self.guarded("intern", [&] {
    self.strings.push_back(read_text(env, argument));
    result = number(env, double(self.strings.size() - 1));
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
  napi_value list;
  napi_create_array(env, &list);
  if (!(op >= 0) || op >= double(self.operators.size())) return list;
  const Operator& found = *self.operators[static_cast<size_t>(op)];
  if (!(overload >= 0) || overload >= double(found.overloads.size())) return list;
  uint32_t index = 0;
  for (const c10::Argument& result : found.overloads[static_cast<size_t>(overload)].handle.schema().returns()) {
    if (result.name().empty()) continue;
    napi_value text;
    napi_create_string_utf8(env, result.name().c_str(), result.name().size(), &text);
    napi_set_element(env, list, index++, text);
  }
  return list;
}

// settle(job): writes a finished job's result like a call's; what JavaScript does when told that a job is over.
napi_value settle(napi_env env, napi_callback_info info) {
  Environment& self = *Environment::of(env);
  size_t count = 1;
  napi_value argument;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  double id = 0;
  napi_get_value_double(env, argument, &id);
  auto found = self.finished.find(static_cast<uint32_t>(id));
  if (found == self.finished.end()) return nullptr;
  std::shared_ptr<QueuedJob> job = std::move(found->second);
  self.finished.erase(found);
  job->let_go();
  self.warnings.insert(self.warnings.end(), job->warnings.begin(), job->warnings.end());
  self.guarded(job->name.c_str(), [&] {
    if (job->failed) {
      self.last_error = job->error;
      self.buffer[Environment::kStatus] = 1;
      return;
    }
    auto* op = dynamic_cast<OperatorJob*>(job.get());
    Writer writer = self.results();
    if (op != nullptr && op->same != 0)
      writer.cell(Tag::kSame, op->same);
    else if (op != nullptr && op->empty)
      writer.cell(Tag::kUndefined, 0);
    else
      self.write_result(std::move(job->result), self.scope());
  });
  return nullptr;
}

// retry(job): runs a job again that ran out of memory; false when it may not be, and settle() gives its error.
napi_value retry(napi_env env, napi_callback_info info) {
  Environment& self = *Environment::of(env);
  size_t count = 1;
  napi_value argument;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  double id = 0;
  napi_get_value_double(env, argument, &id);
  auto found = self.finished.find(static_cast<uint32_t>(id));
  if (found == self.finished.end() || !found->second->failed || found->second->retried ||
      !found->second->repeatable()) {
    return number(env, 0);
  }
  std::shared_ptr<QueuedJob> job = std::move(found->second);
  self.finished.erase(found);
  release_caches();
  self.resubmit(std::move(job));
  return number(env, 1);
}

// ranOutOfMemory(job): whether a finished job failed for want of memory and may be tried again.
napi_value ran_out_of_memory(napi_env env, napi_callback_info info) {
  Environment& self = *Environment::of(env);
  size_t count = 1;
  napi_value argument;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  double id = 0;
  napi_get_value_double(env, argument, &id);
  auto found = self.finished.find(static_cast<uint32_t>(id));
  const bool yes = found != self.finished.end() && found->second->failed && !found->second->retried &&
                   found->second->repeatable() && found->second->error.kind == ErrorKind::kOutOfMemory;
  return number(env, yes ? 1 : 0);
}

// writeStashed(): writes a result that did not fit before the buffer grew.
napi_value write_stashed(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  self.guarded("", [&] { self.write_result(std::exchange(self.stashed, c10::IValue()), self.stashed_scope); });
  return nullptr;
}

// takeError(): { kind, message, op, jsError } of the last failure.
napi_value take_error(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  napi_value result, text;
  napi_create_object(env, &result);
  napi_set_named_property(env, result, "kind", number(env, double(static_cast<int>(self.last_error.kind))));
  napi_set_named_property(env, result, "jsError", number(env, double(self.last_error.js_error)));
  napi_create_string_utf8(env, self.last_error.message.data(), self.last_error.message.size(), &text);
  napi_set_named_property(env, result, "message", text);
  napi_create_string_utf8(env, self.last_error.op.data(), self.last_error.op.size(), &text);
  napi_set_named_property(env, result, "op", text);
  return result;
}

napi_value take_warnings(napi_env env, napi_callback_info) {
  Environment& self = *Environment::of(env);
  napi_value list;
  napi_create_array(env, &list);
  for (size_t i = 0; i < self.warnings.size(); ++i) {
    napi_value text;
    napi_create_string_utf8(env, self.warnings[i].data(), self.warnings[i].size(), &text);
    napi_set_element(env, list, static_cast<uint32_t>(i), text);
  }
  self.warnings.clear();
  return list;
}

napi_value call_buffer(napi_env env, napi_callback_info) {
  napi_value buffer;
  napi_get_reference_value(env, Environment::of(env)->buffer_ref, &buffer);
  return buffer;
}

// growBuffer(doubles): a larger call buffer with the same content.
napi_value grow_buffer(napi_env env, napi_callback_info info) {
  Environment& self = *Environment::of(env);
  size_t count = 1;
  napi_value argument;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  double doubles = 0;
  napi_get_value_double(env, argument, &doubles);
  self.guarded("growBuffer", [&] {
    if (!(doubles >= double(self.capacity)) || doubles > double(1 << 26)) {
      throw BindingError(ErrorKind::kArguments, "the arguments of one call may hold at most 33 million values");
    }
    self.allocate_buffer(static_cast<size_t>(doubles));
  });
  return call_buffer(env, info);
}

// setDispatchers(onSettled, onCallback, onReleased)
napi_value set_dispatchers(napi_env env, napi_callback_info info) {
  Environment& self = *Environment::of(env);
  size_t count = 3;
  napi_value arguments[3];
  napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr);
  napi_create_reference(env, arguments[0], 1, &self.on_settled);
  napi_create_reference(env, arguments[1], 1, &self.on_callback);
  napi_create_reference(env, arguments[2], 1, &self.on_released);
  return nullptr;
}

// schemas(): every operator schema in the loaded libtorch, as text; the generator's input.
napi_value schemas(napi_env env, napi_callback_info) {
  std::vector<std::string> texts;
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    if (auto handle = dispatcher.findSchema(name)) texts.push_back(c10::toString(handle->schema()));
  }
  std::sort(texts.begin(), texts.end());
  napi_value list;
  napi_create_array_with_length(env, texts.size(), &list);
  for (size_t i = 0; i < texts.size(); ++i) {
    napi_value text;
    napi_create_string_utf8(env, texts[i].data(), texts[i].size(), &text);
    napi_set_element(env, list, static_cast<uint32_t>(i), text);
  }
  return list;
}

}  // namespace

void export_calls(napi_env env, napi_value exports) {
  export_function(env, exports, "call", call);
  export_function(env, exports, "callQueued", call_queued);
  export_function(env, exports, "resolve", resolve);
  export_function(env, exports, "intern", intern);
  export_function(env, exports, "returnNames", return_names);
  export_function(env, exports, "settle", settle);
  export_function(env, exports, "writeStashed", write_stashed);
  export_function(env, exports, "retry", retry);
  export_function(env, exports, "ranOutOfMemory", ran_out_of_memory);
  export_function(env, exports, "takeError", take_error);
  export_function(env, exports, "takeWarnings", take_warnings);
  export_function(env, exports, "callBuffer", call_buffer);
  export_function(env, exports, "growBuffer", grow_buffer);
  export_function(env, exports, "setDispatchers", set_dispatchers);
  export_function(env, exports, "schemas", schemas);
}

}  // namespace voxtorch

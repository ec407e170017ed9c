// Calling an operator now: its arguments become a stack, the result cells; and the buffer, texts and errors of calls.
#include "binding/overloads.h"

namespace voxtorch {
namespace {

// The handle of the argument that an in-place operator returned, or 0.
double same_argument(const Overload& overload, const Binding& binding, const Slab& slab, const c10::IValue& result) {
  if (!overload.writes || !result.isTensor()) return 0;
  for (size_t i = 0; i < overload.arguments.size(); ++i) {
    const Reader* cell = binding.cells[i];
    if (!overload.arguments[i].writes || cell == nullptr || cell->tag() != Tag::kTensor) continue;
    const c10::IValue* value = slab.find(cell->value());
    if (value != nullptr && value->isTensor() && value->toTensor().is_same(result.toTensor())) return cell->value();
  }
  return 0;
}

// Elements of tensors, or -1 once one of them is not in the CPU's memory.
class Elements {
 public:
  void add(const at::Tensor& tensor) {
    if (!tensor.defined() || count_ < 0) return;
    if (!tensor.is_cpu()) {
      count_ = -1;
    } else {
      count_ += tensor.numel();
    }
  }
  int64_t count() const { return count_; }

 private:
  int64_t count_ = 0;
};

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
  // The slab cannot change meanwhile: no operator calls JavaScript on this thread.
  const at::Tensor& first = values[0]->toTensor();
  Elements elements;
  elements.add(first);
  if (count == 4) elements.add(values[1]->toTensor());
  {
    const AllThreads threads(overload->width.reached(elements.count()));
    ContextGuard guard(self.context());
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
  Elements elements;
  build_stack(overload, given, binding, self.slab, context.device, stack, [&](const at::Tensor& tensor, Use use) {
    if (busy) check_free(tensor, use);
    elements.add(tensor);
  });
  {
    const AllThreads threads(overload.width.reached(elements.count(), stack));
    ContextGuard guard(context);
    if (overload.guard != nullptr) overload.guard(overload.handle.schema(), stack);
    std::vector<at::Tensor> written;
    if (overload.writes) written = written_lists(overload.handle.schema(), stack);
    overload.handle.callBoxed(stack);
    changed(written);
  }
  self.header(Environment::kOverload) = double(&overload - op.overloads.data());
  const double same = stack.size() == 1 ? same_argument(overload, binding, self.slab, stack[0]) : 0;
  if (same != 0) {
    self.results().cell(Tag::kSame, same);
  } else if (auto result = take_result(overload.handle.schema(), stack)) {
    self.write_result(std::move(*result), self.scope());
  } else {
    self.results().cell(Tag::kUndefined, 0);
  }
}

// The hot path: raw, because node-addon-api's view of a call's arguments costs as much as a small operator.
napi_value call(napi_env env, napi_callback_info) {
  void* data = nullptr;
  if (napi_get_instance_data(env, &data) != napi_ok || data == nullptr) {
    // Refused only where an exception is on its way already.
    const bool thrown = napi_throw_error(env, nullptr, "voxtorch: napi_get_instance_data failed") == napi_ok;
    (void)thrown;
    return nullptr;
  }
  Environment& self = *static_cast<Environment*>(data);
  const char* name = "";
  self.guarded(name, [&] {
    Operator& op = requested(self);
    name = op.name.c_str();
    if (!call_unboxed(self, op)) call_boxed(self, op);
  });
  return nullptr;
}

// intern(text): the number by which cells name a string.
Napi::Value intern(Environment& self, const Napi::CallbackInfo& info) {
  self.strings.push_back(info[0].As<Napi::String>());
  return Napi::Number::New(info.Env(), double(self.strings.size() - 1));
}

// writeStashed(): writes a result that did not fit before the buffer grew.
void write_stashed(Environment& self, Reader&) {
  self.write_result(std::exchange(self.stashed, c10::IValue()), self.stashed_scope);
}

// takeError(): { kind, message, op, jsError } of the last failure.
Napi::Value take_error(Environment& self, const Napi::CallbackInfo& info) {
  const Napi::Object result = Napi::Object::New(info.Env());
  result.Set("kind", static_cast<double>(self.last_error.kind));
  result.Set("jsError", static_cast<double>(self.last_error.js_error));
  result.Set("message", self.last_error.message);
  result.Set("op", self.last_error.op);
  return result;
}

Napi::Value take_warnings(Environment& self, const Napi::CallbackInfo& info) {
  return texts(info.Env(), std::exchange(self.warnings, {}));
}

Napi::Value call_buffer(Environment& self, const Napi::CallbackInfo&) { return self.buffer_ref.Value(); }

// growBuffer(doubles): a larger call buffer with the same content.
Napi::Value grow_buffer(Environment& self, const Napi::CallbackInfo& info) {
  self.guarded("growBuffer", [&] {
    const double doubles = number(info, 0);
    if (!(doubles >= double(self.capacity)) || doubles > double(1 << 26)) {
      fail(ErrorKind::kArguments, "the arguments of one call may hold at most 33 million values");
    }
    self.allocate_buffer(static_cast<size_t>(doubles));
  });
  return self.buffer_ref.Value();
}

// setDispatchers(onSettled, onCallback, onReleased)
Napi::Value set_dispatchers(Environment& self, const Napi::CallbackInfo& info) {
  self.on_settled = Napi::Persistent(info[0].As<Napi::Function>());
  self.on_callback = Napi::Persistent(info[1].As<Napi::Function>());
  self.on_released = Napi::Persistent(info[2].As<Napi::Function>());
  return info.Env().Undefined();
}

}  // namespace

void export_calls(Napi::Object exports) {
  napi_value function;
  check(napi_create_function(exports.Env(), "call", NAPI_AUTO_LENGTH, call, nullptr, &function),
        "napi_create_function");
  exports.Set("call", function);
  export_function<intern>(exports, "intern");
  export_cells<write_stashed>(exports, "writeStashed", "");
  export_function<take_error>(exports, "takeError");
  export_function<take_warnings>(exports, "takeWarnings");
  export_function<call_buffer>(exports, "callBuffer");
  export_function<grow_buffer>(exports, "growBuffer");
  export_function<set_dispatchers>(exports, "setDispatchers");
}

}  // namespace voxtorch

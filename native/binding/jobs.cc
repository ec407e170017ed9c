// Operators as jobs on the executor: queued, settled, and tried again where memory ran out.
#include "binding/overloads.h"

namespace voxtorch {
namespace {

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

// Whether a job that is over may be run again.
bool may_repeat(const QueuedJob& job) { return job.failed && !job.retried && job.repeatable(); }

// settle(job): writes a finished job's result like a call's; what JavaScript does when told that a job is over.
napi_value settle(napi_env env, napi_callback_info info) {
  Environment& self = *Environment::of(env);
  auto found = self.finished.find(static_cast<uint32_t>(number_argument(env, info)));
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
  auto found = self.finished.find(static_cast<uint32_t>(number_argument(env, info)));
  if (found == self.finished.end() || !may_repeat(*found->second)) return number(env, 0);
  std::shared_ptr<QueuedJob> job = std::move(found->second);
  self.finished.erase(found);
  release_caches();
  self.resubmit(std::move(job));
  return number(env, 1);
}

// ranOutOfMemory(job): whether a finished job failed for want of memory and may be tried again.
napi_value ran_out_of_memory(napi_env env, napi_callback_info info) {
  Environment& self = *Environment::of(env);
  auto found = self.finished.find(static_cast<uint32_t>(number_argument(env, info)));
  const bool yes = found != self.finished.end() && may_repeat(*found->second) &&
                   found->second->error.kind == ErrorKind::kOutOfMemory;
  return number(env, yes ? 1 : 0);
}

}  // namespace

void export_jobs(napi_env env, napi_value exports) {
  export_function(env, exports, "callQueued", call_queued);
  export_function(env, exports, "settle", settle);
  export_function(env, exports, "retry", retry);
  export_function(env, exports, "ranOutOfMemory", ran_out_of_memory);
}

}  // namespace voxtorch

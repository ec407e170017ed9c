// Operators as jobs on the executor: queued, settled, and tried again where memory ran out.
#include "binding/overloads.h"
#include "core/runtime/runtime.h"

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

 protected:
  bool repeatable() const override { return !writes; }

  c10::IValue work() override {
    // A copy, because the call eats its stack, and out of memory is tried twice.
    torch::jit::Stack running = stack;
    // Here and not when queued: an earlier job may change what is checked.
    if (guard != nullptr) guard(handle.schema(), running);
    const std::vector<at::Tensor> written = written_lists(handle.schema(), running);
    handle.callBoxed(running);
    changed(written);
    stack.clear();
    empty = running.empty();
    if (same != 0 || empty) return c10::IValue();
    return *take_result(handle.schema(), running);
  }
};

// Of the fused and multi-tensor kernels of optimizers: they are elementwise.
int64_t cost_of(const Operator& op, const torch::jit::Stack& stack) {
  if (op.name.rfind("aten::_fused_", 0) != 0 && op.name.rfind("aten::_foreach_", 0) != 0) return kUnknownCost;
  int64_t elements = 0;
  const auto count = [&](const at::Tensor& tensor) {
    if (tensor.is_cpu()) elements += tensor.numel();
    return tensor.is_cpu() && elements <= kLightCost;
  };
  for (const c10::IValue& value : stack) {
    if (value.isTensor() && value.toTensor().defined() && !count(value.toTensor())) return kUnknownCost;
    if (!value.isTensorList()) continue;
    for (const at::Tensor& tensor : value.toTensorList()) {
      if (!count(tensor)) return kUnknownCost;
    }
  }
  return elements;
}

// callQueued with cells: the arguments of the operator in the header.
void call_queued(Environment& self, Reader& cells) {
  Operator& op = requested(self);
  Given given;
  split_arguments(cells, given);
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
  job->cost = cost_of(op, job->stack);
  self.submit(std::move(job));
}

// The finished job that a call names, or nullptr.
QueuedJob* finished_job(Environment& self, const Napi::CallbackInfo& info) {
  const auto found = self.finished.find(static_cast<uint32_t>(number(info, 0, 0)));
  return found == self.finished.end() ? nullptr : found->second.get();
}

std::shared_ptr<QueuedJob> take(Environment& self, const QueuedJob& job) {
  return std::move(self.finished.extract(job.id).mapped());
}

// settle(job): writes a finished job's result like a call's; what JavaScript does when told that a job is over.
Napi::Value settle(Environment& self, const Napi::CallbackInfo& info) {
  QueuedJob* const found = finished_job(self, info);
  if (found == nullptr) return info.Env().Undefined();
  const std::shared_ptr<QueuedJob> job = take(self, *found);
  job->let_go();
  self.warnings.insert(self.warnings.end(), job->warnings.begin(), job->warnings.end());
  self.guarded(job->name.c_str(), [&] {
    if (job->failed) {
      self.last_error = job->error;
      self.buffer[Environment::kStatus] = 1;
      return;
    }
    auto* op = dynamic_cast<OperatorJob*>(job.get());
    if (op != nullptr && op->same != 0)
      self.results().cell(Tag::kSame, op->same);
    else if (op != nullptr && op->empty)
      self.results().cell(Tag::kUndefined, 0);
    else
      self.write_result(std::move(job->result));
  });
  return info.Env().Undefined();
}

// retry(job): runs a job again that ran out of memory; false when it may not be, and settle() gives its error.
Napi::Value retry(Environment& self, const Napi::CallbackInfo& info) {
  QueuedJob* const job = finished_job(self, info);
  const bool again = job != nullptr && job->may_run_again();
  if (again) {
    release_caches();
    self.resubmit(self.finished.at(job->id));
    self.finished.erase(job->id);
  }
  return Napi::Boolean::New(info.Env(), again);
}

// ranOutOfMemory(job): whether a finished job failed for want of memory and may be tried again.
Napi::Value ran_out_of_memory(Environment& self, const Napi::CallbackInfo& info) {
  const QueuedJob* const job = finished_job(self, info);
  const bool yes = job != nullptr && job->may_run_again() && job->error.kind == ErrorKind::kOutOfMemory;
  return Napi::Boolean::New(info.Env(), yes);
}

}  // namespace

void export_jobs(Napi::Object exports) {
  export_cells<call_queued>(exports, "callQueued", "");
  export_function<settle>(exports, "settle");
  export_function<retry>(exports, "retry");
  export_function<ran_out_of_memory>(exports, "ranOutOfMemory");
}

}  // namespace voxtorch

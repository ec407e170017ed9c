// One Environment per JavaScript thread: its slab, its call buffer, its side of the channel.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "binding/arguments.h"
#include "binding/handles.h"
#include "binding/napi.h"
#include "binding/results.h"
#include "core/runtime/queued_job.h"

namespace voxtorch {

struct Operator;

class Environment {
 public:
  // Throws where Node-API refuses what it needs; nothing of it is left then. Else it lives as long as `env`.
  static void create(Napi::Env env);
  static Environment& of(napi_env env);

  // The header of the call buffer; numbers shared with lib/native/buffer.ts.
  enum Header {
    kStatus = 0,
    kOperator = 1,
    kBegin = 2,
    kEnd = 3,
    kFlags = 4,
    kScope = 5,
    kWarned = 6,
    kDevice = 7,
    kOverload = 8,
    kDone = 9,
    kTag = 10,
    kValue = 11
  };

  double& header(Header slot) { return buffer[slot]; }
  Reader arguments() const;
  Writer results() { return Writer(buffer, static_cast<size_t>(buffer[kBegin]), capacity); }
  // Writes a result at the beginning of the arguments; stashes one that does not fit (status 2).
  void write_result(c10::IValue value, uint32_t scope);
  void write_result(c10::IValue value) { write_result(std::move(value), scope()); }
  Context context() const { return Context::decode(buffer[kFlags], buffer[kDevice]); }
  uint32_t scope() const { return static_cast<uint32_t>(buffer[kScope]); }

  // Runs `body`, turning what it throws into header status 1 and `last_error`.
  template <typename Body>
  void guarded(const char* const& name, Body body) {
    buffer[kStatus] = 0;
    buffer[kWarned] = 0;
    try {
      body();
    } catch (...) {
      last_error = current_error();
      if (last_error.op.empty()) last_error.op = name;
      buffer[kStatus] = 1;
    }
    if (!warnings.empty()) buffer[kWarned] = 1;
    report_memory();
  }

  // Queues a job and leaves its number in the header. A light job with nothing before it runs at once, on this thread;
  // kDone says so. It holds its claims until it is settled, so that whoever does not wait for it finds out at any size.
  void submit(std::shared_ptr<QueuedJob> job);
  // Queues a finished job again, under the same number.
  void resubmit(std::shared_ptr<QueuedJob> job);
  // Calls the JavaScript dispatcher for a callback, on this thread; throws its error.
  std::vector<c10::IValue> invoke_here(uint32_t callback, int kind, const Context& context,
                                       const std::vector<c10::IValue>& arguments, size_t at);
  void allocate_buffer(size_t doubles);
  void report_memory();

  Napi::Env env;
  Slab slab;
  double* buffer = nullptr;
  size_t capacity = 0;
  Napi::Reference<Napi::ArrayBuffer> buffer_ref;
  std::vector<std::string> strings;
  std::vector<Operator*> operators;
  ErrorInfo last_error;
  std::vector<std::string> warnings;
  std::shared_ptr<Channel> channel;
  Napi::FunctionReference on_settled, on_callback, on_released;
  std::unordered_map<uint32_t, std::shared_ptr<QueuedJob>> finished;
  // A result with more values than the call buffer holds, until JavaScript has made it larger.
  c10::IValue stashed;
  uint32_t stashed_scope = 0;

 private:
  explicit Environment(Napi::Env env);
  void connect();
  static void cleanup(void* self);
  void keep_alive();  // the process, for one more job on the executor
  // Delivers what other threads have sent.
  void drain();
  void tell(napi_ref dispatcher, uint32_t number);
  napi_value dispatch(napi_ref dispatcher, std::initializer_list<double> numbers);
  void uncaught(const std::string& message);

  WarningCollector collector_{&warnings};
  napi_threadsafe_function wake_ = nullptr;
  uint32_t next_job_ = 1;
  uint32_t pending_ = 0;  // jobs on the executor
  int64_t reported_bytes_ = 0;
};

// An export that takes and gives JavaScript values. What it throws becomes a JavaScript error.
template <Napi::Value (*function)(Environment&, const Napi::CallbackInfo&)>
Napi::Value entry(const Napi::CallbackInfo& info) {
  return function(Environment::of(info.Env()), info);
}
template <Napi::Value (*function)(Environment&, const Napi::CallbackInfo&)>
void export_function(Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New<entry<function>>(exports.Env(), name));
}

// An export whose arguments and results are cells. What it throws is kept for takeError(), under the name `op`.
template <void (*function)(Environment&, Reader&)>
void cells_entry(const Napi::CallbackInfo& info) {
  Environment& self = Environment::of(info.Env());
  self.guarded(static_cast<const char*>(info.Data()), [&] {
    Reader cells = self.arguments();
    function(self, cells);
  });
}
template <void (*function)(Environment&, Reader&)>
void export_cells(Napi::Object exports, const char* name, const char* op) {
  exports.Set(name, Napi::Function::New<cells_entry<function>>(exports.Env(), name, const_cast<char*>(op)));
}

// Registers the exports of each part of the binding.
void export_operators(Napi::Object exports);
void export_calls(Napi::Object exports);
void export_jobs(Napi::Object exports);
void export_tensors(Napi::Object exports);
void export_autograd(Napi::Object exports);
void export_functorch(Napi::Object exports);
void export_audio(Napi::Object exports);

}  // namespace voxtorch

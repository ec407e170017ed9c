// One Environment per JavaScript thread: its slab, its call buffer, its road back from the executor.
#pragma once

#include <c10/util/Exception.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "binding/arguments.h"
#include "binding/context.h"
#include "binding/errors.h"
#include "binding/handles.h"
#include "binding/napi.h"
#include "binding/results.h"
#include "core/busy.h"
#include "core/executor.h"

namespace voxtorch {

struct Operator;

// libtorch's warnings during a call or job, handed to process.emitWarning by JavaScript.
class WarningCollector : public c10::WarningHandler {
 public:
  explicit WarningCollector(std::vector<std::string>* sink) : sink_(sink) {}
  void process(const c10::Warning& warning) override { sink_->push_back(warning.msg()); }

 private:
  std::vector<std::string>* sink_;
};

// A queued piece of work and its result. `work` runs on the executor, everything else on the owner's JavaScript thread.
class QueuedJob : public Executor::Job, public std::enable_shared_from_this<QueuedJob> {
 public:
  uint32_t id = 0;
  uint32_t scope = 0;
  Context context;
  std::string name;
  std::vector<BusyTable::Claim> claims;
  std::vector<at::Tensor> held;  // keeps claimed memory alive, so that its key stays its own
  c10::IValue result;
  ErrorInfo error;
  bool failed = false;
  bool retried = false;
  bool light = false;  // so little CPU work that handing it to another thread and back would take longer
  std::vector<std::string> warnings;
  std::shared_ptr<class Channel> channel;

  ~QueuedJob() override;
  void run() final;
  void deliver() final;
  void claim(const at::Tensor& tensor, Use use);
  // Frees what the job claims.
  void let_go();
  // Whether a run that failed left everything as it was, so that another may be tried.
  virtual bool repeatable() const { return false; }

 protected:
  virtual c10::IValue work() = 0;
};

// Up to as many elements a job counts as light: the time of a few calls of an operator.
constexpr int64_t kLightElements = 1 << 16;

// A call from a native thread into JavaScript; the caller waits until `done`.
struct JavaScriptCall {
  uint32_t callback = 0;
  int kind = 0;  // numbers shared with lib/native/callbacks.ts
  Context context;
  std::vector<c10::IValue> arguments;
  std::vector<c10::IValue> results;
  ErrorInfo error;
  bool failed = false;
  bool done = false;
};

// What a callback is called for; numbers shared with lib/native/callbacks.ts.
enum CallbackKind { kForward = 0, kBackward = 1, kGradientHook = 2, kForwardHook = 3 };

// The part of an environment that other threads may touch. It outlives the environment.
class Channel {
 public:
  Channel();
  ~Channel();
  void complete(std::shared_ptr<QueuedJob> job);
  // Runs a JavaScript callback on the owner's thread and waits; throws its error, or kCancelled when the owner exits.
  // Not from that thread itself, which would wait for itself.
  std::vector<c10::IValue> invoke(uint32_t callback, int kind, std::vector<c10::IValue> arguments);
  // Lets the owner drop a callback, from whichever thread its last user died on.
  void release_callback(uint32_t callback);
  void close();
  bool closed();
  // Ends every wait for JavaScript in the process, which is about to exit.
  static void close_all();

  // JavaScript-thread side.
  std::deque<std::shared_ptr<QueuedJob>> take_completed();
  std::deque<JavaScriptCall*> take_calls();
  std::vector<uint32_t> take_released();
  void finish(JavaScriptCall* call);

  napi_threadsafe_function wake = nullptr;

 private:
  void signal();  // with mutex_ held

  const std::thread::id owner_ = std::this_thread::get_id();
  std::mutex mutex_;
  std::condition_variable answered_;
  bool closed_ = false;
  bool signalled_ = false;
  std::deque<std::shared_ptr<QueuedJob>> completed_;
  std::deque<JavaScriptCall*> calls_;
  std::vector<uint32_t> released_;
};

// Names a JavaScript callback for as long as some native object may call it.
struct CallbackOwner : torch::CustomClassHolder {
  CallbackOwner(std::shared_ptr<Channel> channel, uint32_t callback)
      : channel(std::move(channel)), callback(callback) {}
  ~CallbackOwner() override { channel->release_callback(callback); }
  std::shared_ptr<Channel> channel;
  uint32_t callback;
};

class Environment {
 public:
  explicit Environment(napi_env env);
  static Environment* of(napi_env env);

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
  Writer results();
  // Writes a result at the beginning of the arguments; stashes one that does not fit (status 2).
  void write_result(c10::IValue value, uint32_t scope);
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
  // Delivers what other threads have sent. JavaScript thread.
  void drain();
  // Calls the JavaScript dispatcher for a callback, on this thread; throws its error.
  std::vector<c10::IValue> invoke_here(uint32_t callback, int kind, const Context& context,
                                       const std::vector<c10::IValue>& arguments, size_t at);
  void allocate_buffer(size_t doubles);
  void report_memory();

  napi_env env;
  Slab slab;
  double* buffer = nullptr;
  size_t capacity = 0;
  napi_ref buffer_ref = nullptr;
  std::vector<std::string> strings;
  std::vector<Operator*> operators;
  ErrorInfo last_error;
  std::vector<std::string> warnings;
  std::shared_ptr<Channel> channel;
  napi_ref on_settled = nullptr;
  napi_ref on_callback = nullptr;
  napi_ref on_released = nullptr;
  std::unordered_map<uint32_t, std::shared_ptr<QueuedJob>> finished;
  // A result with more values than the call buffer holds, until JavaScript has made it larger.
  c10::IValue stashed;
  uint32_t stashed_scope = 0;

 private:
  static void cleanup(void* self);
  WarningCollector collector_;
  uint32_t next_job_ = 1;
  uint32_t pending_ = 0;
  int64_t reported_bytes_ = 0;
};

napi_value call_function(napi_env env, napi_ref function, size_t count, const double* numbers, bool* threw);

// Registers the exports of each part of the binding.
void export_operators(napi_env env, napi_value exports);
void export_calls(napi_env env, napi_value exports);
void export_jobs(napi_env env, napi_value exports);
void export_tensors(napi_env env, napi_value exports);
void export_autograd(napi_env env, napi_value exports);
void export_hooks(napi_env env, napi_value exports);
void export_runtime(napi_env env, napi_value exports);

// Gives cached memory back, of the CPU and of every CUDA device.
void release_caches();

void export_function(napi_env env, napi_value exports, const char* name, napi_callback callback);

}  // namespace voxtorch

#include "binding/environment.h"

#include <algorithm>

#include "core/runtime/functorch.h"
#include "core/runtime/wide_call.h"

namespace voxtorch {

Environment::Environment(Napi::Env env) : env(env) {
  Channel::stop_all_at_exit();
  use_one_thread_here();
  allocate_buffer(1 << 15);
}

void Environment::create(Napi::Env env) {
  std::unique_ptr<Environment> self(new Environment(env));
  self->connect();
  c10::WarningUtils::set_warning_handler(&self->collector_);
  self.release();  // of the environment's instance data
}

void Environment::connect() {
  const auto on_wake = [](napi_env env, napi_value, void* context, void*) {
    // env is null while the environment is being torn down.
    if (env != nullptr) static_cast<Environment*>(context)->drain();
  };
  const auto destroy = [](napi_env, void* self, void*) { delete static_cast<Environment*>(self); };
  check(napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "voxtorch"), 0, 1, nullptr,
                                        nullptr, this, on_wake, &wake_),
        "napi_create_threadsafe_function");
  try {
    check(napi_unref_threadsafe_function(env, wake_), "napi_unref_threadsafe_function");
    channel = std::make_shared<Channel>([wake = wake_] {
      const napi_status status = napi_call_threadsafe_function(wake, nullptr, napi_tsfn_nonblocking);
      return status == napi_ok || status == napi_closing;
    });
    check(napi_add_env_cleanup_hook(env, cleanup, this), "napi_add_env_cleanup_hook");
    check(napi_set_instance_data(env, this, destroy, nullptr), "napi_set_instance_data");
  } catch (...) {
    const bool undone = napi_remove_env_cleanup_hook(env, cleanup, this) == napi_ok &&
                        napi_release_threadsafe_function(wake_, napi_tsfn_abort) == napi_ok;
    if (!undone) Napi::Error::Fatal("voxtorch", "Node-API neither gives an environment nor takes one back");
    throw;
  }
}

Environment& Environment::of(napi_env env) {
  void* data = nullptr;
  check(napi_get_instance_data(env, &data), "napi_get_instance_data");
  if (data == nullptr) fail(ErrorKind::kOther, "this thread's part of voxtorch did not load");
  return *static_cast<Environment*>(data);
}

void Environment::cleanup(void* data) {
  auto* self = static_cast<Environment*>(data);
  // Order: no waits on this thread, then no work of it, then its data.
  self->channel->close();
  Executor::instance().cancel(self->channel.get());
  self->finished.clear();
  self->slab.clear();
  c10::WarningUtils::set_warning_handler(nullptr);
}

Reader Environment::arguments() const {
  const double begin = buffer[kBegin];
  const double end = buffer[kEnd];
  if (!(begin >= kHeaderDoubles) || !(end >= begin) || end > double(capacity)) {
    fail(ErrorKind::kArguments, "the call buffer is damaged");
  }
  return Reader{buffer + static_cast<size_t>(begin), buffer + static_cast<size_t>(end), &strings};
}

void Environment::write_result(c10::IValue value, uint32_t scope) {
  const size_t needed = cells_needed(value) * 2;
  if (static_cast<size_t>(buffer[kBegin]) + needed > capacity) {
    stashed = std::move(value);
    stashed_scope = scope;
    buffer[kStatus] = 2;
    buffer[kValue] = double(needed);
    return;
  }
  Writer writer = results();
  write_value(writer, std::move(value), slab, scope);
}

void Environment::allocate_buffer(size_t doubles) {
  Napi::ArrayBuffer array = Napi::ArrayBuffer::New(env, doubles * sizeof(double));
  auto reference = Napi::Reference<Napi::ArrayBuffer>::New(array, 1);
  auto* data = static_cast<double*>(array.Data());
  if (buffer != nullptr) std::copy(buffer, buffer + std::min(capacity, doubles), data);
  buffer_ref = std::move(reference);
  buffer = data;
  capacity = doubles;
}

void Environment::report_memory() {
  const int64_t change = slab.external_bytes() - reported_bytes_;
  if (change < (1 << 20) && change > -(1 << 20)) return;
  int64_t total;
  // A change that V8 does not learn of now is reported with the next one.
  if (napi_adjust_external_memory(env, change, &total) == napi_ok) reported_bytes_ += change;
}

void Environment::submit(std::shared_ptr<QueuedJob> job) {
  if (in_transform()) {
    fail(ErrorKind::kNotImplemented,
         job->name +
             ": expected a synchronous operator inside a transform of func, got a job for the "
             "executor's thread, which does not see the transform. Use the synchronous form; func.grad takes the place "
             "of backward()");
  }
  job->id = next_job_++;
  job->context = context();
  job->channel = channel;
  job->owner = channel.get();
  buffer[kValue] = job->id;
  const bool nothing_before =
      pending_ == 0 && (Executor::instance().queued() == 0 || !BusyTable::instance().conflicts(job->claims));
  const bool at_once = nothing_before && job->cost <= kLightCost;
  // Where another thread computes with all of them, the executor waits for it: sums divided among threads round
  // otherwise on one.
  const AllThreads threads(at_once && job->cost >= kWideCost);
  job->light = at_once && (job->cost < kWideCost || threads.are_here());
  buffer[kDone] = job->light ? 1 : 0;
  if (!job->light) {
    keep_alive();
    job->hold();
    return Executor::instance().submit(std::move(job));
  }
  job->hold();
  job->run();
  finished[job->id] = std::move(job);
}

void Environment::resubmit(std::shared_ptr<QueuedJob> job) {
  keep_alive();
  job->failed = false;
  job->retried = true;
  job->light = false;
  Executor::instance().submit(std::move(job));
}

void Environment::keep_alive() {
  if (pending_ == 0) check(napi_ref_threadsafe_function(env, wake_), "napi_ref_threadsafe_function");
  ++pending_;
}

// Calls one of JavaScript's dispatchers; throws where that is refused, or JavaScript is being stopped.
napi_value Environment::dispatch(napi_ref dispatcher, std::initializer_list<double> numbers) {
  napi_value function, receiver, result = nullptr;
  napi_value values[4];
  size_t count = 0;
  check(napi_get_reference_value(env, dispatcher, &function), "napi_get_reference_value");
  check(napi_get_undefined(env, &receiver), "napi_get_undefined");
  for (const double number : numbers) check(napi_create_double(env, number, &values[count++]), "napi_create_double");
  const napi_status status = napi_call_function(env, receiver, function, count, values, &result);
  if (status == napi_ok) return result;
  // Every later call would be refused for an exception that stays pending. The dispatchers catch what user code throws;
  // what comes through is the end of this thread.
  bool pending = false;
  napi_value ignored;
  check(napi_is_exception_pending(env, &pending), "napi_is_exception_pending");
  if (pending) {
    check(napi_get_and_clear_last_exception(env, &ignored), "napi_get_and_clear_last_exception");
    fail(ErrorKind::kCancelled, "JavaScript execution was stopped inside a callback");
  }
  check(status, "napi_call_function");
  return result;
}

std::vector<c10::IValue> Environment::invoke_here(uint32_t callback, int kind, const Context& context,
                                                  const std::vector<c10::IValue>& arguments, size_t at) {
  // What the callback is given, and what it makes, lives until its results have been read.
  struct ScopeGuard {
    Slab& slab;
    uint32_t scope;
    ~ScopeGuard() { slab.close_scope(scope); }
  } guard{slab, slab.open_scope()};
  Writer writer(buffer, at, capacity);
  for (const c10::IValue& argument : arguments) write_value(writer, argument, slab, guard.scope);
  buffer[kScope] = guard.scope;
  // The pass waits for the hook, which may change the parameter and its gradient.
  const BusyTable::Exempt exempt(kind == kAccumulateHook ? arguments[0].toTensor() : at::Tensor());
  const napi_value returned = dispatch(on_callback, {double(callback), double(kind), double(at), context.flags()});
  double end = -1;
  check(napi_get_value_double(env, returned, &end), "napi_get_value_double");
  // The dispatcher catches what the callback throws and answers with minus the number of the kept error.
  if (end < 0) fail(ErrorKind::kJavaScript, "a JavaScript callback threw", static_cast<uint32_t>(-end));
  std::vector<c10::IValue> results;
  if (!(end <= double(capacity))) fail(ErrorKind::kArguments, "the call buffer is damaged");
  Reader cell{buffer + at, buffer + static_cast<size_t>(end), &strings};
  while (!cell.done()) {
    if (cell.tag() == Tag::kList)
      results.emplace_back(read_tensors(cell, slab));
    else if (cell.tag() == Tag::kTensor)
      results.emplace_back(read_tensor(cell, slab));
    else if (cell.tag() == Tag::kBool)
      results.emplace_back(cell.value() != 0);
    else
      results.emplace_back();
    cell.skip();
  }
  return results;
}

// Sends JavaScript a number that a promise waits for. A refused call is tried once more, because nothing else retries
// it; the dispatchers accept a number twice.
void Environment::tell(napi_ref dispatcher, uint32_t number) {
  for (const bool last : {false, true}) {
    try {
      dispatch(dispatcher, {double(number)});
      return;
    } catch (const std::exception& error) {
      if (last) uncaught(std::string("a promise could not be settled: ") + error.what());
    }
  }
}

// An 'uncaughtException' event. Where even that is refused, the thread is being terminated.
void Environment::uncaught(const std::string& message) {
  napi_value text, error;
  const bool raised = napi_create_string_utf8(env, message.data(), message.size(), &text) == napi_ok &&
                      napi_create_error(env, nullptr, text, &error) == napi_ok &&
                      napi_fatal_exception(env, error) == napi_ok;
  (void)raised;
}

// Called by Node: throws nothing.
void Environment::drain() {
  Channel::Arrived arrived = channel->take();
  for (auto& job : arrived.completed) {
    const uint32_t id = job->id;
    finished[id] = std::move(job);
    if (--pending_ == 0 && napi_unref_threadsafe_function(env, wake_) != napi_ok) {
      uncaught("napi_unref_threadsafe_function failed: this process no longer ends by itself");
    }
    tell(on_settled, id);
  }
  for (JavaScriptCall* call : arrived.calls) {
    try {
      call->results = invoke_here(call->callback, call->kind, call->context, call->arguments, kHeaderDoubles);
    } catch (...) {
      call->failed = true;
      call->error = current_error();
    }
    call->arguments.clear();
    channel->finish(call);
  }
  for (const uint32_t callback : arrived.released) tell(on_released, callback);
  report_memory();
}

}  // namespace voxtorch

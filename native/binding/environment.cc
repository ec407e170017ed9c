#include "binding/environment.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

extern "C" __attribute__((weak)) int uv_tty_reset_mode(void);

namespace voxtorch {
namespace {

void stop_executor_at_exit() {
  static std::once_flag once;
  std::call_once(once, [] {
    // After this nothing of libtorch runs; its static destructors would only take a tenth of a second to free what the
    // kernel frees anyway. Registered after libtorch was loaded, so this comes before them.
    on_exit(
        [](int status, void*) {
          Channel::close_all();
          Executor::instance().stop();
          if (uv_tty_reset_mode != nullptr) uv_tty_reset_mode();  // Node's own handler is skipped as well
          std::fflush(nullptr);
          _exit(status);
        },
        nullptr);
  });
}

}  // namespace

QueuedJob::~QueuedJob() { BusyTable::instance().release(claims); }

void QueuedJob::claim(const at::Tensor& tensor, Use use) {
  const void* key = BusyTable::memory_key(tensor);
  if (key == nullptr) return;
  claims.push_back({key, use});
  held.push_back(tensor);
}

void QueuedJob::run() {
  WarningCollector collector(&warnings);
  c10::WarningHandler* before = c10::WarningUtils::get_warning_handler();
  c10::WarningUtils::set_warning_handler(&collector);
  try {
    ContextGuard guard(context);
    result = work();
  } catch (...) {
    failed = true;
    error = current_error();
    if (error.op.empty()) error.op = name;
  }
  if (context.autocast_cpu != 0 || context.autocast_cuda != 0) clear_autocast_cache();
  c10::WarningUtils::set_warning_handler(before);
  const bool may_repeat = failed && error.kind == ErrorKind::kOutOfMemory && repeatable() && !retried;
  if (!may_repeat && !light) let_go();
}

void QueuedJob::deliver() { channel->complete(shared_from_this()); }

// The work is over: its inputs are free before JavaScript learns of it.
void QueuedJob::let_go() {
  BusyTable::instance().release(claims);
  claims.clear();
  held.clear();
}

namespace {
std::mutex channels_mutex;
std::vector<Channel*> channels;
}  // namespace

Channel::Channel() {
  std::lock_guard<std::mutex> lock(channels_mutex);
  channels.push_back(this);
}

Channel::~Channel() {
  std::lock_guard<std::mutex> lock(channels_mutex);
  channels.erase(std::remove(channels.begin(), channels.end(), this), channels.end());
}

void Channel::close_all() {
  std::lock_guard<std::mutex> lock(channels_mutex);
  for (Channel* channel : channels) channel->close();
}

void Channel::signal() {
  if (signalled_ || closed_ || wake == nullptr) return;
  signalled_ = true;
  napi_call_threadsafe_function(wake, nullptr, napi_tsfn_nonblocking);
}

void Channel::complete(std::shared_ptr<QueuedJob> job) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return;
  completed_.push_back(std::move(job));
  signal();
}

std::vector<c10::IValue> Channel::invoke(uint32_t callback, int kind, std::vector<c10::IValue> arguments) {
  JavaScriptCall call;
  call.callback = callback;
  call.kind = kind;
  call.arguments = std::move(arguments);
  call.context.grad = c10::GradMode::is_enabled();
  call.context.inference = c10::InferenceMode::is_enabled();
  {
    if (std::this_thread::get_id() == owner_) {
      throw BindingError(ErrorKind::kValue, "a network whose blocks have forward hooks runs in the queue only");
    }
    std::unique_lock<std::mutex> lock(mutex_);
    if (closed_) throw BindingError(ErrorKind::kCancelled, "the thread that owns a JavaScript callback has exited");
    calls_.push_back(&call);
    signal();
    answered_.wait(lock, [&] { return call.done || closed_; });
    if (!call.done) {
      // close() emptied the queue; the owner's thread no longer knows this call.
      throw BindingError(ErrorKind::kCancelled, "the thread that owns a JavaScript callback has exited");
    }
  }
  if (call.failed) throw BindingError(call.error.kind, call.error.message, call.error.js_error);
  return std::move(call.results);
}

void Channel::release_callback(uint32_t callback) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return;
  released_.push_back(callback);
  signal();
}

void Channel::close() {
  std::deque<std::shared_ptr<QueuedJob>> completed;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    completed.swap(completed_);
    calls_.clear();
    wake = nullptr;
  }
  answered_.notify_all();
}

bool Channel::closed() {
  std::lock_guard<std::mutex> lock(mutex_);
  return closed_;
}

std::deque<std::shared_ptr<QueuedJob>> Channel::take_completed() {
  std::lock_guard<std::mutex> lock(mutex_);
  signalled_ = false;
  return std::exchange(completed_, {});
}

std::deque<JavaScriptCall*> Channel::take_calls() {
  std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(calls_, {});
}

std::vector<uint32_t> Channel::take_released() {
  std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(released_, {});
}

void Channel::finish(JavaScriptCall* call) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    call->done = true;
  }
  answered_.notify_all();
}

Environment::Environment(napi_env env) : env(env), channel(std::make_shared<Channel>()), collector_(&warnings) {
  stop_executor_at_exit();
  use_one_thread_here();
  c10::WarningUtils::set_warning_handler(&collector_);
  allocate_buffer(1 << 15);

  napi_value name;
  napi_create_string_utf8(env, "voxtorch", NAPI_AUTO_LENGTH, &name);
  napi_create_threadsafe_function(
      env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this,
      [](napi_env env, napi_value, void* context, void*) {
        // env is null while the environment is being torn down.
        if (env != nullptr) static_cast<Environment*>(context)->drain();
      },
      &channel->wake);
  // Only work in flight keeps the process alive.
  napi_unref_threadsafe_function(env, channel->wake);
  napi_add_env_cleanup_hook(env, cleanup, this);
  napi_set_instance_data(
      env, this, [](napi_env, void* self, void*) { delete static_cast<Environment*>(self); }, nullptr);
}

Environment* Environment::of(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return static_cast<Environment*>(data);
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
    throw BindingError(ErrorKind::kArguments, "the call buffer is damaged");
  }
  return Reader{buffer + static_cast<size_t>(begin), buffer + static_cast<size_t>(end), &strings};
}

Writer Environment::results() { return Writer(buffer, static_cast<size_t>(buffer[kBegin]), capacity); }

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
  napi_value array;
  void* data = nullptr;
  if (napi_create_arraybuffer(env, doubles * sizeof(double), &data, &array) != napi_ok) {
    throw BindingError(ErrorKind::kOutOfMemory, "no memory for a larger call buffer");
  }
  if (buffer != nullptr) std::copy(buffer, buffer + std::min(capacity, doubles), static_cast<double*>(data));
  if (buffer_ref != nullptr) napi_delete_reference(env, buffer_ref);
  napi_create_reference(env, array, 1, &buffer_ref);
  buffer = static_cast<double*>(data);
  capacity = doubles;
}

void Environment::report_memory() {
  const int64_t change = slab.external_bytes() - reported_bytes_;
  if (change < (1 << 20) && change > -(1 << 20)) return;
  int64_t total;
  napi_adjust_external_memory(env, change, &total);
  reported_bytes_ += change;
}

void Environment::submit(std::shared_ptr<QueuedJob> job) {
  job->id = next_job_++;
  job->scope = scope();
  job->context = context();
  job->channel = channel;
  job->owner = channel.get();
  buffer[kValue] = job->id;
  const bool nothing_before =
      pending_ == 0 && (Executor::instance().queued() == 0 || !BusyTable::instance().conflicts(job->claims));
  if (job->light && nothing_before) {
    BusyTable::instance().claim(job->claims);
    job->run();
    buffer[kDone] = 1;
    finished[job->id] = std::move(job);
    return;
  }
  job->light = false;
  buffer[kDone] = 0;
  BusyTable::instance().claim(job->claims);
  if (pending_++ == 0) napi_ref_threadsafe_function(env, channel->wake);
  Executor::instance().submit(std::move(job));
}

void Environment::resubmit(std::shared_ptr<QueuedJob> job) {
  job->failed = false;
  job->retried = true;
  job->light = false;
  if (pending_++ == 0) napi_ref_threadsafe_function(env, channel->wake);
  Executor::instance().submit(std::move(job));
}

napi_value call_function(napi_env env, napi_ref function, size_t count, const double* numbers, bool* threw) {
  napi_value fn, receiver, result = nullptr;
  napi_value values[4];
  napi_get_reference_value(env, function, &fn);
  napi_get_undefined(env, &receiver);
  for (size_t i = 0; i < count; ++i) napi_create_double(env, numbers[i], &values[i]);
  *threw = napi_call_function(env, receiver, fn, count, values, &result) != napi_ok;
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
  const double numbers[4] = {double(callback), double(kind), double(at), context.flags()};
  bool threw = false;
  napi_value returned = call_function(env, on_callback, 4, numbers, &threw);
  double end = -1;
  if (!threw && returned != nullptr) napi_get_value_double(env, returned, &end);
  // The dispatcher catches what the callback throws and answers with minus the number of the kept error.
  if (threw || end == -1) {
    bool pending = false;
    napi_is_exception_pending(env, &pending);
    napi_value ignored;
    if (pending) napi_get_and_clear_last_exception(env, &ignored);
    throw BindingError(ErrorKind::kCancelled, "JavaScript execution was stopped inside a callback");
  }
  if (end < 0) {
    throw BindingError(ErrorKind::kJavaScript, "a JavaScript callback threw", static_cast<uint32_t>(-end));
  }
  std::vector<c10::IValue> results;
  if (end > double(capacity)) throw BindingError(ErrorKind::kArguments, "the call buffer is damaged");
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

void Environment::drain() {
  napi_handle_scope handles;
  napi_open_handle_scope(env, &handles);
  for (auto& job : channel->take_completed()) {
    const uint32_t id = job->id;
    finished[id] = std::move(job);
    if (--pending_ == 0) napi_unref_threadsafe_function(env, channel->wake);
    const double number = id;
    bool threw = false;
    call_function(env, on_settled, 1, &number, &threw);
    if (threw) break;
  }
  for (JavaScriptCall* call : channel->take_calls()) {
    try {
      call->results = invoke_here(call->callback, call->kind, call->context, call->arguments, kHeaderDoubles);
    } catch (...) {
      call->failed = true;
      call->error = current_error();
    }
    call->arguments.clear();
    channel->finish(call);
  }
  for (uint32_t callback : channel->take_released()) {
    const double number = callback;
    bool threw = false;
    call_function(env, on_released, 1, &number, &threw);
    if (threw) break;
  }
  napi_close_handle_scope(env, handles);
  report_memory();
}

void export_function(napi_env env, napi_value exports, const char* name, napi_callback callback) {
  napi_value function;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function);
  napi_set_named_property(env, exports, name, function);
}

}  // namespace voxtorch

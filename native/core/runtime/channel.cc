#include "core/runtime/channel.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "core/runtime/queued_job.h"

extern "C" __attribute__((weak)) int uv_tty_reset_mode(void);

namespace voxtorch {
namespace {

std::mutex channels_mutex;
std::vector<Channel*> channels;

[[noreturn]] void owner_has_exited() {
  fail(ErrorKind::kCancelled, "the thread that owns a JavaScript callback has exited");
}

}  // namespace

Channel::Channel(std::function<bool()> wake) : wake_(std::move(wake)) {
  std::lock_guard<std::mutex> lock(channels_mutex);
  channels.push_back(this);
}

Channel::~Channel() {
  std::lock_guard<std::mutex> lock(channels_mutex);
  channels.erase(std::remove(channels.begin(), channels.end(), this), channels.end());
}

void Channel::stop_all_at_exit() {
  static std::once_flag once;
  std::call_once(once, [] {
    // After this nothing of libtorch runs; its static destructors would only take a tenth of a second to free what the
    // kernel frees anyway. Registered after libtorch was loaded, so this comes before them.
    on_exit(
        [](int status, void*) {
          {
            std::lock_guard<std::mutex> lock(channels_mutex);
            for (Channel* channel : channels) channel->close();
          }
          Executor::instance().stop();
          if (uv_tty_reset_mode != nullptr) uv_tty_reset_mode();  // Node's own handler is skipped as well
          std::fflush(nullptr);
          _exit(status);
        },
        nullptr);
  });
}

void Channel::signal() {
  if (signalled_ || closed_) return;
  // A refusal is temporary. Nothing else notifies the owner, whose promise would never settle.
  for (int tries = 0; tries < 100 && !signalled_; ++tries) {
    if (tries > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    signalled_ = wake_();
  }
}

void Channel::complete(std::shared_ptr<QueuedJob> job) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return;
  arrived_.completed.push_back(std::move(job));
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
      if (caller_) return caller_(callback, kind, call.arguments);
      fail(ErrorKind::kValue, "a network whose blocks have forward hooks runs in the queue only");
    }
    std::unique_lock<std::mutex> lock(mutex_);
    if (closed_) owner_has_exited();
    arrived_.calls.push_back(&call);
    signal();
    answered_.wait(lock, [&] { return call.done || closed_; });
    // close() emptied the queue; the owner's thread no longer knows this call.
    if (!call.done) owner_has_exited();
  }
  if (call.failed) fail(call.error.kind, call.error.message, call.error.js_error);
  return std::move(call.results);
}

void Channel::release_callback(uint32_t callback) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return;
  arrived_.released.push_back(callback);
  signal();
}

void Channel::close() {
  Arrived dropped;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    std::swap(dropped, arrived_);
  }
  answered_.notify_all();
}

Channel::Arrived Channel::take() {
  std::lock_guard<std::mutex> lock(mutex_);
  signalled_ = false;
  return std::exchange(arrived_, {});
}

void Channel::finish(JavaScriptCall* call) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    call->done = true;
  }
  answered_.notify_all();
}

at::Tensor CallbackOwner::call(int kind, std::vector<c10::IValue> arguments) const {
  const auto results = channel->invoke(callback, kind, std::move(arguments));
  return results.empty() || !results[0].isTensor() ? at::Tensor() : results[0].toTensor();
}

}  // namespace voxtorch

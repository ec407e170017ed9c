// The way from native threads back to a thread that runs JavaScript: finished jobs, calls that wait for an answer,
// callbacks that nothing needs any more.
#pragma once

#include <torch/custom_class.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/runtime/context.h"
#include "core/runtime/errors.h"

namespace voxtorch {

class QueuedJob;

// What a callback is called for; numbers shared with lib/native/callbacks.ts.
enum CallbackKind { kForward = 0, kBackward = 1, kGradientHook = 2, kForwardHook = 3, kAccumulateHook = 4 };

// A call from a native thread into JavaScript; the caller waits until `done`.
struct JavaScriptCall {
  uint32_t callback = 0;
  int kind = 0;
  Context context;
  std::vector<c10::IValue> arguments;
  std::vector<c10::IValue> results;
  ErrorInfo error;
  bool failed = false;
  bool done = false;
};

// The part of an environment that other threads may touch. It outlives the environment.
class Channel {
 public:
  // `wake` makes the owner take what has arrived, soon and on its own thread; false where it could not, and is tried
  // again. Called on any thread, never after close().
  explicit Channel(std::function<bool()> wake);
  ~Channel();
  void complete(std::shared_ptr<QueuedJob> job);
  // Runs a JavaScript callback on the owner's thread and waits; throws its error, or kCancelled when the owner exits.
  // From that thread itself only while CallsHere lives: it would wait for itself.
  std::vector<c10::IValue> invoke(uint32_t callback, int kind, std::vector<c10::IValue> arguments);
  // Lets the owner drop a callback, from whichever thread its last user died on.
  void release_callback(uint32_t callback);
  void close();
  // When the process exits: ends every wait for JavaScript, then the executor, then the process.
  static void stop_all_at_exit();

  // The owner's side.
  struct Arrived {
    std::deque<std::shared_ptr<QueuedJob>> completed;
    std::deque<JavaScriptCall*> calls;
    std::vector<uint32_t> released;
  };
  Arrived take();
  void finish(JavaScriptCall* call);

  // While it lives, on the owner's thread, callbacks that this thread needs are called here.
  using Caller =
      std::function<std::vector<c10::IValue>(uint32_t callback, int kind, const std::vector<c10::IValue>& arguments)>;
  class CallsHere {
   public:
    CallsHere(Channel& channel, Caller caller) : channel_(channel), before_(std::move(channel.caller_)) {
      channel.caller_ = std::move(caller);
    }
    ~CallsHere() { channel_.caller_ = std::move(before_); }
    CallsHere(const CallsHere&) = delete;

   private:
    Channel& channel_;
    Caller before_;
  };

 private:
  void signal();  // with mutex_ held

  const std::thread::id owner_ = std::this_thread::get_id();
  const std::function<bool()> wake_;
  std::mutex mutex_;
  std::condition_variable answered_;
  bool closed_ = false;
  bool signalled_ = false;
  Arrived arrived_;
  Caller caller_;  // of the owner's thread
};

// Names a JavaScript callback for as long as some native object may call it.
struct CallbackOwner : torch::CustomClassHolder {
  CallbackOwner(std::shared_ptr<Channel> channel, uint32_t callback)
      : channel(std::move(channel)), callback(callback) {}
  ~CallbackOwner() override { channel->release_callback(callback); }
  // The first tensor that the callback answers with, undefined where it answers with none.
  at::Tensor call(int kind, std::vector<c10::IValue> arguments) const;
  std::shared_ptr<Channel> channel;
  uint32_t callback;
};

}  // namespace voxtorch

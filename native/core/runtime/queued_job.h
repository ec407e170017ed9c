// A piece of work on the executor whose result goes back to the thread that queued it.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/runtime/busy.h"
#include "core/runtime/channel.h"
#include "core/runtime/context.h"
#include "core/runtime/errors.h"
#include "core/runtime/executor.h"

namespace voxtorch {

// libtorch's warnings during a call or job, handed to process.emitWarning by JavaScript.
class WarningCollector : public c10::WarningHandler {
 public:
  explicit WarningCollector(std::vector<std::string>* sink) : sink_(sink) {}
  void process(const c10::Warning& warning) override { sink_->push_back(warning.msg()); }

 private:
  std::vector<std::string>* sink_;
};

// Throws where a job in flight forbids this use of the tensor's memory.
void check_free(const at::Tensor& tensor, Use use);

// The cost of a job is the number of elements that it computes elementwise, or that would take as long: nanoseconds,
// about. Up to here a job runs at once: handing it to another thread and back takes 0.1 to 0.3 ms.
constexpr int64_t kLightCost = 1 << 20;
// From here on with all threads. To wake them takes some 50 microseconds where they have begun to sleep.
constexpr int64_t kWideCost = 1 << 17;
constexpr int64_t kUnknownCost = std::numeric_limits<int64_t>::max();

// `work` runs on the executor, everything else on the thread of the channel's owner.
class QueuedJob : public Executor::Job, public std::enable_shared_from_this<QueuedJob> {
 public:
  uint32_t id = 0;
  Context context;
  std::string name;
  std::vector<BusyTable::Claim> claims;
  std::vector<at::Tensor> held;  // keeps claimed memory alive, so that its key stays its own
  c10::IValue result;
  ErrorInfo error;
  bool failed = false;
  bool retried = false;
  int64_t cost = kUnknownCost;
  bool light = false;  // it ran at once
  std::vector<std::string> warnings;
  std::shared_ptr<Channel> channel;

  ~QueuedJob() override;
  void run() final;
  void deliver() final;
  void claim(const at::Tensor& tensor, Use use);
  // Makes the claims hold, until the job is over or let_go() is called. A job that is not queued after all leaves none.
  void hold();
  void let_go();
  // Whether a run that failed may be tried once more.
  bool may_run_again() const { return failed && !retried && repeatable(); }

 protected:
  virtual c10::IValue work() = 0;
  // Whether a run that fails leaves everything as it was.
  virtual bool repeatable() const { return false; }

 private:
  bool holding_ = false;
};

}  // namespace voxtorch

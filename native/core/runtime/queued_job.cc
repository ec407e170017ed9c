#include "core/runtime/queued_job.h"

namespace voxtorch {

void check_free(const at::Tensor& tensor, Use use) {
  BusyTable& busy = BusyTable::instance();
  if (!busy.any() || !busy.conflicts(tensor, use)) return;
  fail(ErrorKind::kBusy,
       use == Use::kWrite ? "a queued job still uses the memory that this call would change; await its promise first"
                          : "a queued job is changing the memory that this call would read; await its promise first");
}

QueuedJob::~QueuedJob() { let_go(); }

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
  const bool again = error.kind == ErrorKind::kOutOfMemory && may_run_again();
  if (!again && !light) let_go();
}

void QueuedJob::deliver() { channel->complete(shared_from_this()); }

void QueuedJob::hold() {
  if (!holding_) BusyTable::instance().claim(claims);
  holding_ = true;
}

// The work is over: its inputs are free before JavaScript learns of it.
void QueuedJob::let_go() {
  if (holding_) BusyTable::instance().release(claims);
  holding_ = false;
  claims.clear();
  held.clear();
}

}  // namespace voxtorch

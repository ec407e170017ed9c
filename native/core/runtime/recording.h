// Where no gradient is needed, networks take shortcuts on the CPU whose last bits differ. A checkpointed layer runs
// without a graph first and with one in backward, and both runs must give the same bits: its first run takes none.
#pragma once

#include <ATen/core/grad_mode.h>

#include <optional>

namespace voxtorch {

class RunsAgain {
 public:
  RunsAgain() : before_(active_) { active_ = true; }
  ~RunsAgain() { active_ = before_; }
  RunsAgain(const RunsAgain&) = delete;
  RunsAgain& operator=(const RunsAgain&) = delete;

  static bool active() { return active_; }

 private:
  static inline thread_local bool active_ = false;
  const bool before_;
};

// Around Function::apply: libtorch turns gradients off in an autograd function's forward, which makes it no inference.
class RecordsForward {
 public:
  RecordsForward() {
    if (at::GradMode::is_enabled()) again_.emplace();
  }

 private:
  std::optional<RunsAgain> again_;
};

// Whether what is computed now can have no gradient, whatever its inputs.
inline bool is_inference() { return !at::GradMode::is_enabled() && !RunsAgain::active(); }

}  // namespace voxtorch

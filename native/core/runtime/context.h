// What follows JavaScript's async context into native code: grad mode, inference mode, autocast, default device.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include <cstdint>
#include <optional>

namespace voxtorch {

struct Context {
  bool grad = true;
  bool inference = false;
  // 0: off, else 1 + the c10::ScalarType that autocast casts to.
  uint8_t autocast_cpu = 0;
  uint8_t autocast_cuda = 0;
  std::optional<c10::Device> device;

  // Flag word: bit 0 grad, bit 1 inference, bits 8-15 and 16-23 the autocast dtypes. Device word: 0 none, else 1 + type
  // * 256 + index.
  static Context decode(double flags, double device);
  double flags() const;
};

// Puts the thread into a context for one operator or job.
class ContextGuard {
 public:
  explicit ContextGuard(const Context& context);

  ~ContextGuard() {
    if (grad_before_ != grad_now_) c10::GradMode::set_enabled(grad_before_);
  }
  ContextGuard(const ContextGuard&) = delete;

 private:
  std::optional<c10::InferenceMode> inference_;
  bool grad_before_;
  bool grad_now_;
};

// Drops the casted weights that autocast remembers on this thread.
void clear_autocast_cache();

}  // namespace voxtorch

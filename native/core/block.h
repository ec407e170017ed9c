// A part of a network that has a forward pass of its own, which a hook may watch.
#pragma once

#include <functional>
#include <memory>
#include <mutex>

#include "core/module.h"

namespace voxtorch {

class Block : public Module {
 public:
  // Gets the block's (first) input and its output, on the thread that runs the pass, and gives what goes on as the
  // output.
  using Hook = std::function<at::Tensor(const at::Tensor& input, const at::Tensor& output)>;

  using Module::Module;

  // Null: none. A pass that is running may still call the one before.
  void set_hook(std::shared_ptr<const Hook> hook);
  // A block that is hooked computes its output by itself, not fused with what comes before or after.
  bool hooked() const { return hooked_.load(std::memory_order_acquire); }
  // What forward() returns: the output, or what the hook makes of it.
  at::Tensor watched(const at::Tensor& input, at::Tensor output) const {
    if (!hooked()) return output;
    return call_hook(input, output);
  }

 private:
  at::Tensor call_hook(const at::Tensor& input, const at::Tensor& output) const;

  std::atomic<bool> hooked_{false};
  mutable std::mutex mutex_;
  std::shared_ptr<const Hook> hook_;
};

}  // namespace voxtorch

#include "core/block.h"

namespace voxtorch {

void Block::set_hook(std::shared_ptr<const Hook> hook) {
  const std::lock_guard<std::mutex> lock(mutex_);
  hook_.swap(hook);
  hooked_.store(hook_ != nullptr, std::memory_order_release);
}

at::Tensor Block::call_hook(const at::Tensor& input, const at::Tensor& output) const {
  std::shared_ptr<const Hook> hook;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    hook = hook_;
  }
  return hook ? (*hook)(input, output) : output;
}

}  // namespace voxtorch

#include "core/transfers.h"

#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace voxtorch {

using at::Tensor;

namespace {

// Only CUDA has pinned memory; elsewhere a copy waits.
Tensor pinned_like(const Tensor& tensor) {
  return at::empty(tensor.sizes(), tensor.options().device(at::kCPU).pinned_memory(true));
}

}  // namespace

Tensor upload(const Tensor& tensor, c10::Device device) {
  if (tensor.device() == device) return tensor;
  if (!tensor.is_cpu() || !device.is_cuda()) return tensor.to(device);
  Tensor pinned = pinned_like(tensor);
  pinned.copy_(tensor);
  return pinned.to(device, /*non_blocking=*/true);
}

Arrival::Arrival(const Tensor& tensor) {
  if (!tensor.is_cuda()) {
    here_ = tensor.to(at::kCPU);
    return;
  }
  here_ = pinned_like(tensor);
  here_.copy_(tensor, /*non_blocking=*/true);
  event_.emplace(tensor.device().type());
  event_->record(c10::impl::VirtualGuardImpl(tensor.device().type()).getStream(tensor.device()));
}

const Tensor& Arrival::here() {
  if (event_) event_->synchronize();
  event_.reset();
  return here_;
}

}  // namespace voxtorch

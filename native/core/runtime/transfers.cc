#include "core/runtime/transfers.h"

#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

namespace voxtorch {

using at::Tensor;

namespace {

// Only CUDA has pinned memory; elsewhere a copy waits.
Tensor pinned(at::IntArrayRef shape, c10::ScalarType dtype) {
  return at::empty(shape, at::TensorOptions().dtype(dtype).pinned_memory(true));
}

}  // namespace

Tensor upload(const Tensor& tensor, c10::Device device) {
  if (tensor.device() == device) return tensor;
  if (!tensor.is_cpu() || !device.is_cuda()) return tensor.to(device);
  return pinned(tensor.sizes(), tensor.scalar_type()).copy_(tensor).to(device, /*non_blocking=*/true);
}

Tensor upload(const std::vector<int64_t>& values, at::IntArrayRef shape, c10::Device device) {
  const Tensor given = device.is_cuda() ? pinned(shape, at::kLong) : at::empty(shape, at::kLong);
  TORCH_CHECK(given.numel() == static_cast<int64_t>(values.size()), "a table of ", values.size(),
              " numbers has no shape ", shape);
  std::copy(values.begin(), values.end(), given.mutable_data_ptr<int64_t>());
  return given.to(device, /*non_blocking=*/true);
}

Arrival::Arrival(const Tensor& tensor) {
  if (!tensor.is_cuda()) {
    here_ = tensor.to(at::kCPU);
    return;
  }
  here_ = pinned(tensor.sizes(), tensor.scalar_type());
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

// Small things between the host and a device: through pinned memory, so that the host goes on while they are copied.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <optional>
#include <vector>

namespace voxtorch {

// A tensor of the CPU's on `device`. To CUDA it goes in order with what is launched before and after, and the host
// waits for nothing. A tensor that is on `device` already is given back; one of another device is ATen's to move.
at::Tensor upload(const at::Tensor& tensor, c10::Device device);
// The same of int64 numbers, in the shape given.
at::Tensor upload(const std::vector<int64_t>& values, at::IntArrayRef shape, c10::Device device);

// A device's tensor on its way to the CPU. What is launched after it does not delay it.
class Arrival {
 public:
  explicit Arrival(const at::Tensor& tensor);
  // Waits until it is here.
  const at::Tensor& here();

 private:
  at::Tensor here_;
  std::optional<c10::Event> event_;
};

}  // namespace voxtorch

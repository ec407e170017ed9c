// Small things between the host and a device: through pinned memory, so that the host goes on while they are copied.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <optional>

namespace voxtorch {

// A tensor of the CPU's on `device`, without a wait; one that is there already as it is.
at::Tensor upload(const at::Tensor& tensor, c10::Device device);

// A device's tensor on its way to the CPU. What is launched behind it does not delay it.
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

// Batches on their way to a GPU: through pinned memory and on a stream of their own, so that neither the host nor what
// the device computes waits for them. What computes with them waits on the device.
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/library.h>

#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "core/runtime/streams.h"

namespace voxtorch {
namespace {

using at::Tensor;

// One for each device, taken when something is first copied there.
c10::Stream copy_stream(c10::Device device) {
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, c10::Stream> streams;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = streams.find(device.index());
  if (found != streams.end()) return found->second;
  const c10::impl::VirtualGuardImpl guard(device.type());
  return streams.emplace(device.index(), guard.getStreamFromGlobalPool(device)).first->second;
}

// The thread's current stream of a device, and the old one again in the end.
class OnStream {
 public:
  explicit OnStream(c10::Stream stream) : guard_(stream.device_type()), before_(guard_.exchangeStream(stream)) {}
  ~OnStream() { guard_.exchangeStream(before_); }
  OnStream(const OnStream&) = delete;

 private:
  c10::impl::VirtualGuardImpl guard_;
  c10::Stream before_;
};

std::vector<Tensor> copy_ahead(at::TensorList tensors, c10::Device device) {
  const at::NoGradGuard no_grad;
  std::vector<Tensor> copies;
  if (!device.is_cuda()) {
    for (const Tensor& tensor : tensors) copies.push_back(tensor.to(device));
    return copies;
  }
  expect_cuda(device);
  const c10::DeviceGuard guard(device);
  const OnStream copying(copy_stream(c10::impl::VirtualGuardImpl(device.type()).getDevice()));
  // libtorch keeps pinned memory until what was copied from it has arrived.
  for (const Tensor& tensor : tensors) {
    const bool from_host = tensor.is_cpu() && tensor.layout() == at::kStrided;
    copies.push_back((from_host ? tensor.pin_memory() : tensor).to(device, /*non_blocking=*/from_host));
  }
  return copies;
}

void await_copies(at::TensorList copies) {
  std::optional<c10::Device> awaited;
  for (const Tensor& copy : copies) {
    if (!copy.is_cuda()) continue;
    const c10::impl::VirtualGuardImpl guard(copy.device().type());
    const c10::Stream computing = guard.getStream(copy.device());
    const c10::Stream copying = copy_stream(copy.device());
    if (computing == copying) continue;
    if (copy.device() != awaited) {
      c10::Event arrived(copy.device().type());
      arrived.record(copying);
      arrived.block(computing);
      awaited = copy.device();
    }
    // Its memory belongs to the stream that it was made on, which must not have it back while this one computes.
    if (copy.layout() == at::kStrided) copy.record_stream(computing);
  }
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // Copies that are on their way: `await_copies` before they are used.
  m.def("copy_ahead(Tensor[] tensors, Device device) -> Tensor[] copies", copy_ahead);
  m.def("await_copies(Tensor[] copies) -> ()", await_copies);
}

}  // namespace voxtorch

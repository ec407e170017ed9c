#include "core/runtime/streams.h"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <array>
#include <atomic>
#include <mutex>
#include <optional>

namespace voxtorch {
namespace {

// Devices as bits.
constexpr int kMostDevices = 64;
std::atomic<uint64_t> expected{0};
thread_local uint64_t on_shared_streams = 0;

uint64_t bit(int index) { return uint64_t{1} << index; }

c10::Stream shared_stream(int index) {
  static std::mutex mutex;
  static std::array<std::optional<c10::Stream>, kMostDevices> streams;
  const std::lock_guard<std::mutex> lock(mutex);
  auto& stream = streams[static_cast<size_t>(index)];
  if (!stream) {
    const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    stream = guard.getStreamFromGlobalPool(device);
  }
  return *stream;
}

}  // namespace

void expect_cuda(c10::Device device) {
  if (device.has_index() && device.index() < kMostDevices &&
      (expected.load(std::memory_order_relaxed) & bit(device.index())) != 0) {
    return use_shared_streams();
  }
  if (!at::hasCUDA() || at::detail::getCUDAHooks().deviceCount() == 0) return;
  const int index =
      device.has_index() ? device.index() : c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).getDevice().index();
  // One that is not there is refused where it is used.
  if (index >= kMostDevices || index >= at::detail::getCUDAHooks().deviceCount()) return;
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  // cuDNN's attention, which Hopper would be given first, makes a plan of tens of milliseconds for each length of the
  // keys: one a token while a cache grows. Changing the order of backends does not help, because ATen sets its own at
  // the first attention.
  at::globalContext().setSDPUseCuDNN(false);
  expected.fetch_or(bit(index), std::memory_order_release);
  use_shared_streams();
}

void use_shared_streams() {
  const uint64_t missing = expected.load(std::memory_order_acquire) & ~on_shared_streams;
  if (missing == 0) return;
  on_shared_streams |= missing;
  const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
  for (int index = 0; index < kMostDevices; ++index) {
    if ((missing & bit(index)) != 0) guard.exchangeStream(shared_stream(index));
  }
}

}  // namespace voxtorch

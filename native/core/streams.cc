#include "core/streams.h"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <atomic>
#include <mutex>
#include <vector>

namespace voxtorch {
namespace {

std::atomic<bool> expected{false};
thread_local bool on_shared_streams = false;

const std::vector<c10::Stream>& shared_streams() {
  static const std::vector<c10::Stream>* streams = [] {
    auto* made = new std::vector<c10::Stream>();
    const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    const auto count = at::detail::getCUDAHooks().deviceCount();
    for (int index = 0; index < count; ++index) {
      made->push_back(
          guard.getStreamFromGlobalPool(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index))));
    }
    return made;
  }();
  return *streams;
}

}  // namespace

void expect_cuda() {
  if (!expected.load(std::memory_order_relaxed) && at::hasCUDA() && at::detail::getCUDAHooks().deviceCount() > 0) {
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
    expected = true;
  }
  use_shared_streams();
}

void use_shared_streams() {
  if (!expected.load(std::memory_order_acquire) || on_shared_streams) return;
  on_shared_streams = true;
  const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
  for (const c10::Stream& stream : shared_streams()) guard.exchangeStream(stream);
}

}  // namespace voxtorch

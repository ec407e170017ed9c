// Found in place of libtorch's: the guard of any device. Like CUDA's, it takes no other.
#pragma once

#include <c10/core/DeviceGuard.h>
#include <c10/util/Exception.h>

namespace c10::cuda {

struct CUDAGuard {
  explicit CUDAGuard(DeviceIndex index) : guard_(Device(DeviceType::CUDA, index)) {}
  explicit CUDAGuard(Device device) : guard_(checked(device)) {}

 private:
  static Device checked(Device device) {
    TORCH_CHECK(device.is_cuda(), "Expected a CUDA device, but got ", device);
    return device;
  }
  DeviceGuard guard_;
};

}  // namespace c10::cuda

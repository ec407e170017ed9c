// Found in place of libtorch's: the stream that the pretended device counts launches by.
#pragma once

#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <cuda_runtime_api.h>

namespace c10::cuda {

struct CUDAStream {
  explicit CUDAStream(Stream stream) : stream_(stream) {}
  cudaStream_t stream() const { return reinterpret_cast<cudaStream_t>(stream_.id()); }
  operator cudaStream_t() const { return stream(); }
  Stream unwrap() const { return stream_; }

 private:
  Stream stream_;
};

inline CUDAStream getCurrentCUDAStream(DeviceIndex index = -1) {
  return CUDAStream(impl::VirtualGuardImpl(DeviceType::CUDA).getStream(Device(DeviceType::CUDA, index)));
}

}  // namespace c10::cuda

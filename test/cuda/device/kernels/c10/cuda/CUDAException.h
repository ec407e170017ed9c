// Found in place of libtorch's: its words for a launch that was refused.
#pragma once

#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>

#define C10_CUDA_CHECK(call)                                                               \
  do {                                                                                     \
    const cudaError_t pretended_error = (call);                                            \
    if (pretended_error != cudaSuccess) {                                                  \
      cudaGetLastError();                                                                  \
      TORCH_CHECK(false, "CUDA error: ", cudaGetErrorString(pretended_error));             \
    }                                                                                      \
  } while (0)
#define C10_CUDA_KERNEL_LAUNCH_CHECK() C10_CUDA_CHECK(cudaGetLastError())

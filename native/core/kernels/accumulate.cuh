// The type that a CUDA kernel computes in, and the way back. Internal to the files that include it; nothing of ATen.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace voxtorch::kernels {
namespace {

template <typename T>
struct Accumulator {
  using type = float;
};
template <>
struct Accumulator<double> {
  using type = double;
};

template <typename T, typename Acc>
__device__ T narrow(Acc value) {
  return static_cast<T>(value);
}
template <>
__device__ __nv_bfloat16 narrow<__nv_bfloat16, float>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ __half narrow<__half, float>(float value) {
  return __float2half_rn(value);
}

}  // namespace
}  // namespace voxtorch::kernels

// What AdamW's CUDA kernel with 8-bit moments is given: raw pointers only, and as many parameters at once as a launch
// has room for. Nothing of ATen.
#pragma once

#include <cstdint>

namespace voxtorch::kernels {

constexpr int kAdamBlock = 256;  // elements that share a scale

enum class AdamType { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

// A parameter and its gradient, of one dtype, contiguous. Moments are codes with a scale for each block; or float32,
// and the scales null. `step` is one float32: the number of this step.
struct AdamTensor {
  void* param;
  const void* grad;
  void* first;
  void* second;
  float* scale1;
  float* scale2;
  const float* step;
  int64_t count;
};

// A kernel's arguments are 4 KiB at most.
constexpr int kAdamTensors = 56;

struct AdamLaunch {
  double lr, beta1, beta2;
  float sign, decay, keep1, add1, keep2, add2, eps;
  int tensors;
  // The 256 values of the code book with signs, and of the one without, in order; on the device.
  const float* with_sign;
  const float* without;
  // The block at which each tensor begins, and last their number.
  uint32_t begins[kAdamTensors + 1];
  AdamTensor tensor[kAdamTensors];
};
static_assert(sizeof(AdamLaunch) <= 4096, "the arguments of a kernel");

// On the cudaStream_t `stream`; returns a cudaError_t.
int launch_adamw_8bit(AdamType type, const AdamLaunch& args, int multiprocessors, void* stream);

}  // namespace voxtorch::kernels

// AdamW with 8-bit moments on CUDA, all parameters of a launch at once: a warp takes a run of blocks one after the
// other, each lane eight elements of a block, and the scales are maxima over the warp. Bound by memory: every number is
// read and written once. The products and sums are those of the CPU's pass, rounded one by one, so that the bits are
// its too.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "core/kernels/accumulate.cuh"
#include "core/kernels/adamw_8bit/args.h"

namespace voxtorch::kernels {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 8;
constexpr int kEach = kAdamBlock / kWarp;  // elements of a lane
constexpr int kCodes = 256;
constexpr int kBlocksOfWarp = 8;  // at least, so that the tables are worth being loaded
constexpr unsigned kAll = 0xffffffffu;

// The borders between a code book's values.
__device__ void fill_border(const float* value, float* border) {
  for (int i = static_cast<int>(threadIdx.x); i < kCodes; i += kWarp * kWarps)
    border[i] = i + 1 < kCodes ? (value[i] + value[i + 1]) / 2.0f : 0;
}

// The nearest value's code, of a number halfway the lower: how many borders are below it.
__device__ int nearest(const float* border, float number) {
  int low = 0, high = kCodes - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (border[middle] < number)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// A NaN makes the largest NaN.
__device__ float larger(float largest, float size) { return size > largest || size != size ? size : largest; }

// Packs what the lanes hold of a block: codes, and the block's scale.
__device__ void pack(unsigned char* to, float* scale, const float* values, const float* border, int lane, int count) {
  float largest = 0;
  for (int i = 0; i < kEach; ++i) {
    if (lane + i * kWarp < count) largest = larger(largest, fabsf(values[i]));
  }
  for (int bits = kWarp / 2; bits > 0; bits /= 2) largest = larger(largest, __shfl_xor_sync(kAll, largest, bits));
  if (lane == 0) *scale = largest;
  const float factor = 1.0f / (largest < 1e-38f ? 1e-38f : largest);
  for (int i = 0; i < kEach; ++i) {
    if (lane + i * kWarp >= count) continue;
    const float above = __fmul_rn(values[i], factor);
    const float bounded = above > -1.0f ? above : -1.0f;
    to[lane + i * kWarp] = static_cast<unsigned char>(nearest(border, bounded < 1.0f ? bounded : 1.0f));
  }
}

template <typename T>
__global__ void __launch_bounds__(kWarp* kWarps)
    adamw_kernel(const __grid_constant__ AdamLaunch args, uint32_t blocks_of_warp) {
  __shared__ float signed_value[kCodes];
  __shared__ float signed_border[kCodes];
  __shared__ float plain_value[kCodes];
  __shared__ float plain_border[kCodes];
  for (int i = static_cast<int>(threadIdx.x); i < kCodes; i += kWarp * kWarps) {
    signed_value[i] = args.with_sign[i];
    plain_value[i] = args.without[i];
  }
  __syncthreads();
  fill_border(signed_value, signed_border);
  fill_border(plain_value, plain_border);
  __syncthreads();

  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const uint32_t blocks = args.begins[args.tensors];
  const uint64_t warp = static_cast<uint64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  const uint64_t first_block = warp * blocks_of_warp;
  const uint64_t last_block = first_block + blocks_of_warp < blocks ? first_block + blocks_of_warp : blocks;
  int known = -1, at = 0;
  float root = 1, rate = 0;
  for (uint64_t block = first_block; block < last_block; ++block) {
    while (block >= args.begins[at + 1]) ++at;
    const AdamTensor& tensor = args.tensor[at];
    if (known != at) {
      known = at;
      const double step = static_cast<double>(*tensor.step);
      // Two lanes compute the expensive part and broadcast it.
      if (lane == 0) root = static_cast<float>(sqrt(1 - pow(args.beta2, step)));
      if (lane == 1) rate = static_cast<float>(args.lr / (1 - pow(args.beta1, step)));
      root = __shfl_sync(kAll, root, 0);
      rate = __shfl_sync(kAll, rate, 1);
    }
    const int64_t own = static_cast<int64_t>(block - args.begins[at]);
    const int64_t start = own * kAdamBlock;
    const int count = static_cast<int>(tensor.count - start < kAdamBlock ? tensor.count - start : kAdamBlock);
    const bool packed = tensor.scale1 != nullptr;
    T* const param = static_cast<T*>(tensor.param) + start;
    const T* const grad = static_cast<const T*>(tensor.grad) + start;
    unsigned char* const codes1 = static_cast<unsigned char*>(tensor.first) + start;
    unsigned char* const codes2 = static_cast<unsigned char*>(tensor.second) + start;
    float* const wide1 = static_cast<float*>(tensor.first) + start;
    float* const wide2 = static_cast<float*>(tensor.second) + start;
    const float scale1 = packed ? tensor.scale1[own] : 0, scale2 = packed ? tensor.scale2[own] : 0;
    float first[kEach], second[kEach];
    for (int i = 0; i < kEach; ++i) {
      const int element = lane + i * kWarp;
      first[i] = second[i] = 0;
      if (element >= count) continue;
      const float before1 = packed ? __fmul_rn(signed_value[codes1[element]], scale1) : wide1[element];
      const float before2 = packed ? __fmul_rn(plain_value[codes2[element]], scale2) : wide2[element];
      const float slope = args.sign * static_cast<float>(grad[element]);
      first[i] = __fadd_rn(__fmul_rn(before1, args.keep1), __fmul_rn(slope, args.add1));
      second[i] = __fadd_rn(__fmul_rn(before2, args.keep2), __fmul_rn(__fmul_rn(args.add2, slope), slope));
      const float size = __fadd_rn(sqrtf(second[i]) / root, args.eps);
      const float kept = __fmul_rn(static_cast<float>(param[element]), args.decay);
      param[element] = narrow<T, float>(__fadd_rn(kept, -(__fmul_rn(rate, first[i]) / size)));
      if (packed) continue;
      wide1[element] = first[i];
      wide2[element] = second[i];
    }
    if (!packed) continue;
    // All lanes have read the scales before one writes them: the shuffles are between.
    pack(codes1, tensor.scale1 + own, first, signed_border, lane, count);
    pack(codes2, tensor.scale2 + own, second, plain_border, lane, count);
  }
}

template <typename T>
void launch(const AdamLaunch& args, int multiprocessors, cudaStream_t stream) {
  const uint64_t blocks = args.begins[args.tensors];
  // Some blocks of threads a multiprocessor, each warp a run of neighbors.
  const uint64_t warps = static_cast<uint64_t>(multiprocessors) * 8 * kWarps;
  uint64_t each = (blocks + warps - 1) / warps;
  each = each < kBlocksOfWarp ? kBlocksOfWarp : each;
  const uint64_t grid = (blocks + each * kWarps - 1) / (each * kWarps);
  adamw_kernel<T><<<static_cast<unsigned>(grid), kWarp * kWarps, 0, stream>>>(args, static_cast<uint32_t>(each));
}

}  // namespace

int launch_adamw_8bit(AdamType type, const AdamLaunch& args, int multiprocessors, void* stream) {
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (type) {
    case AdamType::kFloat32:
      launch<float>(args, multiprocessors, on);
      break;
    case AdamType::kBFloat16:
      launch<__nv_bfloat16>(args, multiprocessors, on);
      break;
    case AdamType::kFloat16:
      launch<__half>(args, multiprocessors, on);
      break;
  }
  return cudaGetLastError();
}

}  // namespace voxtorch::kernels

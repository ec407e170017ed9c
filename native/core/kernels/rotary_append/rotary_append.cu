// rotary_append_ on CUDA: a thread a pair of dimensions of a query, a key or a value. Bound by the launch: a token's
// query, key and value are some kilobytes. Nothing of ATen is included, so this compiles in seconds.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "core/kernels/accumulate.cuh"
#include "core/kernels/rotary_append/args.h"

namespace voxtorch::kernels {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads) rotary_append_kernel(RotaryAppend args) {
  using Acc = typename Accumulator<T>::type;
  const int64_t half = args.dim / 2, turns = args.rotated / 2, blocks = args.heads + 2 * args.kv_heads;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= args.rows * blocks * half) return;
  const int64_t d = at % half, block = at / half % blocks, row = at / half / blocks;
  const T* const from = static_cast<const T*>(args.qkv) + (row * blocks + block) * args.dim;
  // The pairs after those that rotate lie after them in both halves of what is left.
  const int64_t a = d < turns ? d : d + turns, b = d < turns ? d + turns : d + half;
  T first = from[a], second = from[b];
  if (block < args.heads + args.kv_heads && d < turns) {
    const int64_t angle = row * args.rotation_row + d;
    const Acc c = static_cast<Acc>(static_cast<const T*>(args.cos)[angle]);
    const Acc s = static_cast<Acc>(static_cast<const T*>(args.sin)[angle]);
    const Acc x = static_cast<Acc>(first), y = static_cast<Acc>(second);
    first = narrow<T, Acc>(x * c - y * s);
    second = narrow<T, Acc>(y * c + x * s);
  }
  if (block < args.heads) {
    T* const to = static_cast<T*>(args.query) + (row * args.heads + block) * args.dim;
    to[a] = first;
    to[b] = second;
    return;
  }
  const int64_t place = *args.position;
  if (place < 0 || place >= args.capacity) return;
  const bool is_key = block < args.heads + args.kv_heads;
  const CachePlaces& cache = is_key ? args.keys : args.values;
  const int64_t head = block - args.heads - (is_key ? 0 : args.kv_heads);
  T* const to = static_cast<T*>(cache.data) + row * cache.row + head * cache.head + place * cache.place;
  to[a * cache.dim] = first;
  to[b * cache.dim] = second;
}

template <typename T>
void launch(const RotaryAppend& args, cudaStream_t stream) {
  const int64_t threads = args.rows * (args.heads + 2 * args.kv_heads) * (args.dim / 2);
  const unsigned blocks = static_cast<unsigned>((threads + kThreads - 1) / kThreads);
  rotary_append_kernel<T><<<blocks, kThreads, 0, stream>>>(args);
}

}  // namespace

int launch_rotary_append(RotaryType type, const RotaryAppend& args, void* stream) {
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (type) {
    case RotaryType::kFloat32:
      launch<float>(args, on);
      break;
    case RotaryType::kBFloat16:
      launch<__nv_bfloat16>(args, on);
      break;
    case RotaryType::kFloat16:
      launch<__half>(args, on);
      break;
    case RotaryType::kFloat64:
      launch<double>(args, on);
      break;
  }
  return cudaGetLastError();
}

}  // namespace voxtorch::kernels

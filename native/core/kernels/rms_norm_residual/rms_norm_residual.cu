// rms_norm_residual on CUDA: one block a row, 16-byte accesses, sums in float32 (float64 for float64). Bound by memory:
// forward reads each input once and writes each output once; backward reads its row twice, the second time from cache.
// Nothing of ATen is included, so this compiles in seconds.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "core/kernels/accumulate.cuh"
#include "core/kernels/rms_norm_residual/args.h"

namespace voxtorch::kernels {
namespace {

constexpr int kWarp = 32;
constexpr int kMaxThreads = 512;
constexpr int kHeld =
    4;  // vectors of a row that a thread holds in registers; a longer row goes through memory for the rest

// `Width` elements read or written at once.
template <typename T, int Width>
struct alignas(sizeof(T) * Width) Pack {
  T lane[Width];
};

template <typename T, int Width>
__device__ Pack<T, Width> load(const T* row, int64_t vector) {
  return reinterpret_cast<const Pack<T, Width>*>(row)[vector];
}
template <typename T, int Width>
__device__ void store(T* row, int64_t vector, const Pack<T, Width>& pack) {
  reinterpret_cast<Pack<T, Width>*>(row)[vector] = pack;
}

// The sum over the block, for every thread. `shared` holds a value a warp; a call waits for the last one's readers.
template <typename Acc>
__device__ Acc block_sum(Acc value, Acc* shared) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = 0;
  for (unsigned warp = 0; warp < blockDim.x / kWarp; ++warp) value += shared[warp];
  return value;
}

template <typename T, int Width>
__global__ void __launch_bounds__(kMaxThreads) forward_kernel(RmsNormForward args) {
  using Acc = typename Accumulator<T>::type;
  using Vector = Pack<T, Width>;
  __shared__ Acc shared[kMaxThreads / kWarp];
  const int64_t start = static_cast<int64_t>(blockIdx.x) * args.dim;
  const int64_t vectors = args.dim / Width;
  const T* input = static_cast<const T*>(args.input) + start;
  const T* residual = args.residual ? static_cast<const T*>(args.residual) + start : nullptr;
  const T* weight = static_cast<const T*>(args.weight);
  T* hidden = static_cast<T*>(args.hidden) + start;
  T* output = static_cast<T*>(args.output) + start;

  Acc squares = 0;
  const auto add = [&](int64_t vector) {
    Vector h = load<T, Width>(input, vector);
    if (residual) {
      const Vector r = load<T, Width>(residual, vector);
#pragma unroll
      for (int i = 0; i < Width; ++i)
        h.lane[i] = narrow<T, Acc>(static_cast<Acc>(h.lane[i]) + static_cast<Acc>(r.lane[i]));
    }
#pragma unroll
    for (int i = 0; i < Width; ++i) squares += static_cast<Acc>(h.lane[i]) * static_cast<Acc>(h.lane[i]);
    store<T, Width>(hidden, vector, h);
    return h;
  };
  Vector held[kHeld];
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    const int64_t vector = threadIdx.x + static_cast<int64_t>(k) * blockDim.x;
    if (vector < vectors) held[k] = add(vector);
  }
  const int64_t rest = threadIdx.x + static_cast<int64_t>(kHeld) * blockDim.x;
  for (int64_t vector = rest; vector < vectors; vector += blockDim.x) add(vector);

  const Acc scale = 1 / sqrt(block_sum(squares, shared) / static_cast<Acc>(args.dim) + static_cast<Acc>(args.eps));
  const auto write = [&](int64_t vector, const Vector& h) {
    Vector w;
    if (weight) w = load<T, Width>(weight, vector);
    Vector y;
#pragma unroll
    for (int i = 0; i < Width; ++i) {
      const Acc normed = static_cast<Acc>(h.lane[i]) * scale;
      y.lane[i] = narrow<T, Acc>(weight ? normed * static_cast<Acc>(w.lane[i]) : normed);
    }
    store<T, Width>(output, vector, y);
  };
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    const int64_t vector = threadIdx.x + static_cast<int64_t>(k) * blockDim.x;
    if (vector < vectors) write(vector, held[k]);
  }
  for (int64_t vector = rest; vector < vectors; vector += blockDim.x) write(vector, load<T, Width>(hidden, vector));
}

// Blocks walk over rows, so that each thread sums its own columns of the weight's gradient over the block's rows: in
// registers for the first kHeld vectors, in the block's row of `partials` for the rest. No atomics: the same bits every
// time.
template <typename T, int Width>
__global__ void __launch_bounds__(kMaxThreads)
    backward_kernel(RmsNormBackward args, typename Accumulator<T>::type* partials) {
  using Acc = typename Accumulator<T>::type;
  using Vector = Pack<T, Width>;
  __shared__ Acc shared[kMaxThreads / kWarp];
  const int64_t vectors = args.dim / Width;
  const T* weight = static_cast<const T*>(args.weight);
  Acc* partial = partials ? partials + static_cast<int64_t>(blockIdx.x) * args.dim : nullptr;
  const int64_t rest = threadIdx.x + static_cast<int64_t>(kHeld) * blockDim.x;
  Acc held[kHeld][Width] = {};

  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    const T* grad = static_cast<const T*>(args.grad_output) + row * args.dim;
    const T* grad_hidden =
        args.grad_hidden_out ? static_cast<const T*>(args.grad_hidden_out) + row * args.dim : nullptr;
    const T* hidden = static_cast<const T*>(args.hidden) + row * args.dim;
    T* grad_input = static_cast<T*>(args.grad_input) + row * args.dim;

    Acc squares = 0;
    Acc products = 0;
    for (int64_t vector = threadIdx.x; vector < vectors; vector += blockDim.x) {
      const Vector h = load<T, Width>(hidden, vector);
      const Vector g = load<T, Width>(grad, vector);
      Vector w;
      if (weight) w = load<T, Width>(weight, vector);
#pragma unroll
      for (int i = 0; i < Width; ++i) {
        const Acc value = static_cast<Acc>(h.lane[i]);
        const Acc scaled =
            weight ? static_cast<Acc>(g.lane[i]) * static_cast<Acc>(w.lane[i]) : static_cast<Acc>(g.lane[i]);
        squares += value * value;
        products += scaled * value;
      }
    }
    squares = block_sum(squares, shared);
    products = block_sum(products, shared);
    const Acc scale = 1 / sqrt(squares / static_cast<Acc>(args.dim) + static_cast<Acc>(args.eps));
    const Acc pull = products / static_cast<Acc>(args.dim) * scale * scale;

    const auto write = [&](int64_t vector, Acc* sums) {
      const Vector h = load<T, Width>(hidden, vector);
      const Vector g = load<T, Width>(grad, vector);
      Vector w;
      if (weight) w = load<T, Width>(weight, vector);
      Vector other;
      if (grad_hidden) other = load<T, Width>(grad_hidden, vector);
      Vector result;
#pragma unroll
      for (int i = 0; i < Width; ++i) {
        const Acc value = static_cast<Acc>(h.lane[i]);
        Acc scaled = static_cast<Acc>(g.lane[i]);
        if (sums) sums[i] += scaled * (value * scale);
        if (weight) scaled *= static_cast<Acc>(w.lane[i]);
        scaled = (scaled - value * pull) * scale;
        if (grad_hidden) scaled += static_cast<Acc>(other.lane[i]);
        result.lane[i] = narrow<T, Acc>(scaled);
      }
      store<T, Width>(grad_input, vector, result);
    };
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      const int64_t vector = threadIdx.x + static_cast<int64_t>(k) * blockDim.x;
      if (vector < vectors) write(vector, held[k]);
    }
    for (int64_t vector = rest; vector < vectors; vector += blockDim.x) {
      write(vector, partial ? partial + vector * Width : nullptr);
    }
  }
  if (!partial) return;
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    const int64_t vector = threadIdx.x + static_cast<int64_t>(k) * blockDim.x;
    if (vector < vectors) {
#pragma unroll
      for (int i = 0; i < Width; ++i) partial[vector * Width + i] = held[k][i];
    }
  }
}

template <int Width, typename T>
bool fits(int64_t dim, std::initializer_list<const void*> pointers) {
  if (dim % Width != 0) return false;
  for (const void* pointer : pointers) {
    if (reinterpret_cast<uintptr_t>(pointer) % (Width * sizeof(T)) != 0) return false;
  }
  return true;
}

// Enough threads that a row fits in kHeld vectors each, where it can; whole warps.
unsigned thread_count(int64_t vectors) {
  int64_t threads = vectors <= 256 ? vectors : (vectors + kHeld - 1) / kHeld;
  if (vectors > 256 && threads < 256) threads = 256;
  threads = (threads + kWarp - 1) / kWarp * kWarp;
  return static_cast<unsigned>(threads < kMaxThreads ? threads : kMaxThreads);
}

template <typename T>
void forward(const RmsNormForward& args, cudaStream_t stream) {
  constexpr int kWidth = 16 / sizeof(T);
  const unsigned rows = static_cast<unsigned>(args.rows);
  if (fits<kWidth, T>(args.dim, {args.input, args.residual, args.weight, args.hidden, args.output})) {
    forward_kernel<T, kWidth><<<rows, thread_count(args.dim / kWidth), 0, stream>>>(args);
  } else {
    forward_kernel<T, 1><<<rows, thread_count(args.dim), 0, stream>>>(args);
  }
}

template <typename T>
void backward(const RmsNormBackward& args, void* partials, unsigned blocks, cudaStream_t stream) {
  using Acc = typename Accumulator<T>::type;
  constexpr int kWidth = 16 / sizeof(T);
  Acc* sums = static_cast<Acc*>(partials);
  if (fits<kWidth, T>(args.dim, {args.grad_output, args.grad_hidden_out, args.hidden, args.weight, args.grad_input})) {
    backward_kernel<T, kWidth><<<blocks, thread_count(args.dim / kWidth), 0, stream>>>(args, sums);
  } else {
    backward_kernel<T, 1><<<blocks, thread_count(args.dim), 0, stream>>>(args, sums);
  }
}

}  // namespace

int launch_rms_norm_forward(RowType type, const RmsNormForward& args, void* stream) {
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (type) {
    case RowType::kFloat32:
      forward<float>(args, on);
      break;
    case RowType::kBFloat16:
      forward<__nv_bfloat16>(args, on);
      break;
    case RowType::kFloat16:
      forward<__half>(args, on);
      break;
    case RowType::kFloat64:
      forward<double>(args, on);
      break;
  }
  return cudaGetLastError();
}

int launch_rms_norm_backward(RowType type, const RmsNormBackward& args, void* partials, int64_t blocks, void* stream) {
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  const unsigned grid = static_cast<unsigned>(blocks);
  switch (type) {
    case RowType::kFloat32:
      backward<float>(args, partials, grid, on);
      break;
    case RowType::kBFloat16:
      backward<__nv_bfloat16>(args, partials, grid, on);
      break;
    case RowType::kFloat16:
      backward<__half>(args, partials, grid, on);
      break;
    case RowType::kFloat64:
      backward<double>(args, partials, grid, on);
      break;
  }
  return cudaGetLastError();
}

}  // namespace voxtorch::kernels

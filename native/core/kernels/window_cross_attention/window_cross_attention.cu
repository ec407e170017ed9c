// window_cross_attention on CUDA: a warp for each query of each window and head, and in the backward one for each frame
// and head, which gathers from the windows that the frame is in. No atomics: the same bits every time. Sums are float32
// (float64 for float64). Nothing of ATen is included, so this compiles in seconds.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "core/kernels/accumulate.cuh"
#include "core/kernels/gated_position_attention/dropout.h"
#include "core/kernels/window_cross_attention/args.h"

namespace voxtorch::kernels {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 4;  // of a block
constexpr int kPer = static_cast<int>(kWindowCudaMaxDim) / kWarp;

__device__ float exponential(float value) { return expf(value); }
__device__ double exponential(double value) { return exp(value); }
__device__ float logarithm(float value) { return logf(value); }
__device__ double logarithm(double value) { return log(value); }

// A row of dim numbers over the lanes of a warp; what dim leaves is zero.
template <typename T>
struct Row {
  using Acc = typename Accumulator<T>::type;
  Acc lane[kPer];

  __device__ static Row zero() {
    Row row;
#pragma unroll
    for (int i = 0; i < kPer; ++i) row.lane[i] = 0;
    return row;
  }
  __device__ static Row load(const T* from, int64_t dim) {
    Row row;
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int64_t d = threadIdx.x % kWarp + i * kWarp;
      row.lane[i] = d < dim ? static_cast<Acc>(from[d]) : static_cast<Acc>(0);
    }
    return row;
  }
  __device__ void store(T* to, int64_t dim) const {
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const int64_t d = threadIdx.x % kWarp + i * kWarp;
      if (d < dim) to[d] = narrow<T, Acc>(lane[i]);
    }
  }
  __device__ void add(Acc factor, const Row& other) {
#pragma unroll
    for (int i = 0; i < kPer; ++i) lane[i] += factor * other.lane[i];
  }
  __device__ void scale(Acc factor) {
#pragma unroll
    for (int i = 0; i < kPer; ++i) lane[i] *= factor;
  }
  // For every lane.
  __device__ Acc dot(const Row& other) const {
    Acc sum = 0;
#pragma unroll
    for (int i = 0; i < kPer; ++i) sum += lane[i] * other.lane[i];
    for (int offset = kWarp / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    return sum;
  }
};

template <typename T>
__device__ Row<T> frame(const WindowFrames& frames, int64_t b, int64_t t, int64_t h, int64_t dim) {
  const T* data = static_cast<const T*>(frames.data);
  return Row<T>::load(data + b * frames.batch + t * frames.time + h * frames.head, dim);
}

__device__ int64_t length_of(const WindowAttention& call, int64_t b) {
  if (call.lengths == nullptr || call.lengths[b] > call.time) return call.time;
  return call.lengths[b];
}

// A query of a window and head; `at` counts all of them.
struct Place {
  int64_t at, b, w, q, h, first, count;
};
__device__ Place place_of(const WindowAttention& call, int64_t at) {
  Place p;
  p.at = at;
  p.h = at % call.heads;
  p.q = at / call.heads % call.queries;
  p.w = at / call.heads / call.queries % call.windows;
  p.b = at / call.heads / call.queries / call.windows;
  p.first = p.w * call.stride;
  const int64_t left = length_of(call, p.b) - p.first;
  p.count = left < 0 ? 0 : left < call.window ? left : call.window;
  return p;
}

template <typename Acc>
__device__ Acc factor_of(const WindowAttention& call, const Place& p, int64_t j) {
  if (call.dropout.threshold == 0) return 1;
  return keeps(call.dropout, p.b * call.heads + p.h, p.w * call.queries + p.q, j) ? static_cast<Acc>(call.dropout.scale)
                                                                                  : static_cast<Acc>(0);
}

__device__ int64_t warp_index() { return static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp; }

__host__ __device__ int64_t query_count(const WindowAttention& call) {
  return call.batch * call.windows * call.queries * call.heads;
}

template <typename T>
__global__ void __launch_bounds__(kWarp* kWarps) forward_kernel(WindowForward args) {
  using Acc = typename Accumulator<T>::type;
  const WindowAttention& call = args.call;
  const int64_t at = warp_index();
  if (at >= query_count(call)) return;
  const Place p = place_of(call, at);
  const Row<T> query = Row<T>::load(static_cast<const T*>(call.query) + at * call.dim, call.dim);
  Row<T> sum = Row<T>::zero();
  Acc top = -static_cast<Acc>(INFINITY), total = 0;
  for (int64_t j = 0; j < p.count; ++j) {
    const Acc score = static_cast<Acc>(call.scale) * query.dot(frame<T>(call.key, p.b, p.first + j, p.h, call.dim));
    const Acc higher = score > top ? score : top;
    const Acc shrink = j == 0 ? static_cast<Acc>(0) : exponential(top - higher);
    const Acc weight = exponential(score - higher);
    sum.scale(shrink);
    sum.add(weight * factor_of<Acc>(call, p, j), frame<T>(call.value, p.b, p.first + j, p.h, call.dim));
    total = total * shrink + weight;
    top = higher;
  }
  if (p.count > 0) sum.scale(1 / total);
  sum.store(static_cast<T*>(args.output) + at * call.dim, call.dim);
  if (threadIdx.x % kWarp == 0) {
    static_cast<Acc*>(args.logsumexp)[at] = p.count > 0 ? top + logarithm(total) : static_cast<Acc>(INFINITY);
  }
}

// The gradient of the queries, and for the other kernel what the softmax subtracts.
template <typename T>
__global__ void __launch_bounds__(kWarp* kWarps)
    backward_queries_kernel(WindowBackward args, typename Accumulator<T>::type* deltas) {
  using Acc = typename Accumulator<T>::type;
  const WindowAttention& call = args.call;
  const int64_t at = warp_index();
  if (at >= query_count(call)) return;
  const Place p = place_of(call, at);
  const Acc scale = static_cast<Acc>(call.scale);
  const Acc logsumexp = static_cast<const Acc*>(args.logsumexp)[at];
  const Row<T> query = Row<T>::load(static_cast<const T*>(call.query) + at * call.dim, call.dim);
  const Row<T> grad = Row<T>::load(static_cast<const T*>(args.grad_output) + at * call.dim, call.dim);
  const auto of_frame = [&](int64_t j, const Row<T>& key, Acc& probability, Acc& to_probability) {
    probability = exponential(scale * query.dot(key) - logsumexp);
    to_probability = factor_of<Acc>(call, p, j) * grad.dot(frame<T>(call.value, p.b, p.first + j, p.h, call.dim));
  };
  Acc total = 0, products = 0;
  for (int64_t j = 0; j < p.count; ++j) {
    Acc probability, to_probability;
    of_frame(j, frame<T>(call.key, p.b, p.first + j, p.h, call.dim), probability, to_probability);
    total += probability;
    products += probability * to_probability;
  }
  const Acc delta = p.count > 0 ? products / total : static_cast<Acc>(0);
  Row<T> sum = Row<T>::zero();
  for (int64_t j = 0; j < p.count; ++j) {
    const Row<T> key = frame<T>(call.key, p.b, p.first + j, p.h, call.dim);
    Acc probability, to_probability;
    of_frame(j, key, probability, to_probability);
    sum.add(scale * probability * (to_probability - delta), key);
  }
  sum.store(static_cast<T*>(args.grad_query) + at * call.dim, call.dim);
  if (threadIdx.x % kWarp == 0) deltas[at] = delta;
}

template <typename T>
__global__ void __launch_bounds__(kWarp* kWarps, sizeof(T) > 4 ? 3 : 4)
    backward_frames_kernel(WindowBackward args, const typename Accumulator<T>::type* deltas) {
  using Acc = typename Accumulator<T>::type;
  const WindowAttention& call = args.call;
  const int64_t row = warp_index();  // of [batch, time, heads]
  if (row >= call.batch * call.time * call.heads) return;
  const int64_t h = row % call.heads, t = row / call.heads % call.time, b = row / call.heads / call.time;
  const Acc scale = static_cast<Acc>(call.scale);
  Row<T> to_key = Row<T>::zero(), to_value = Row<T>::zero();
  if (t < length_of(call, b)) {
    const Row<T> key = frame<T>(call.key, b, t, h, call.dim), value = frame<T>(call.value, b, t, h, call.dim);
    const int64_t before = t - call.window + 1;
    const int64_t from = before <= 0 ? 0 : (before + call.stride - 1) / call.stride;
    const int64_t last = t / call.stride;
    for (int64_t w = from; w <= last && w < call.windows; ++w) {
      for (int64_t q = 0; q < call.queries; ++q) {
        const Place p = place_of(call, ((b * call.windows + w) * call.queries + q) * call.heads + h);
        const Row<T> query = Row<T>::load(static_cast<const T*>(call.query) + p.at * call.dim, call.dim);
        const Row<T> grad = Row<T>::load(static_cast<const T*>(args.grad_output) + p.at * call.dim, call.dim);
        const Acc factor = factor_of<Acc>(call, p, t - p.first);
        const Acc probability = exponential(scale * query.dot(key) - static_cast<const Acc*>(args.logsumexp)[p.at]);
        to_value.add(factor * probability, grad);
        to_key.add(scale * probability * (factor * grad.dot(value) - deltas[p.at]), query);
      }
    }
  }
  to_key.store(static_cast<T*>(args.grad_key) + row * call.dim, call.dim);
  to_value.store(static_cast<T*>(args.grad_value) + row * call.dim, call.dim);
}

unsigned blocks_for(int64_t warps) { return static_cast<unsigned>((warps + kWarps - 1) / kWarps); }

template <typename T>
void forward(const WindowForward& args, cudaStream_t stream) {
  forward_kernel<T><<<blocks_for(query_count(args.call)), kWarp * kWarps, 0, stream>>>(args);
}

template <typename T>
void backward(const WindowBackward& args, void* shared, cudaStream_t stream) {
  auto* deltas = static_cast<typename Accumulator<T>::type*>(shared);
  const int64_t queries = query_count(args.call);
  const int64_t frames = args.call.batch * args.call.time * args.call.heads;
  if (queries > 0) backward_queries_kernel<T><<<blocks_for(queries), kWarp * kWarps, 0, stream>>>(args, deltas);
  if (frames > 0) backward_frames_kernel<T><<<blocks_for(frames), kWarp * kWarps, 0, stream>>>(args, deltas);
}

}  // namespace

int launch_window_forward(WindowType type, const WindowForward& args, void* stream) {
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (type) {
    case WindowType::kFloat32:
      forward<float>(args, on);
      break;
    case WindowType::kBFloat16:
      forward<__nv_bfloat16>(args, on);
      break;
    case WindowType::kFloat16:
      forward<__half>(args, on);
      break;
    case WindowType::kFloat64:
      forward<double>(args, on);
      break;
  }
  return cudaGetLastError();
}

int launch_window_backward(WindowType type, const WindowBackward& args, void* deltas, void* stream) {
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (type) {
    case WindowType::kFloat32:
      backward<float>(args, deltas, on);
      break;
    case WindowType::kBFloat16:
      backward<__nv_bfloat16>(args, deltas, on);
      break;
    case WindowType::kFloat16:
      backward<__half>(args, deltas, on);
      break;
    case WindowType::kFloat64:
      backward<double>(args, deltas, on);
      break;
  }
  return cudaGetLastError();
}

}  // namespace voxtorch::kernels

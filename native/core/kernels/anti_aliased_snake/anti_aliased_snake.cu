// anti_aliased_snake on CUDA: a block a tile of one row. The input, the two phases of the doubled signal and, in the
// backward, their gradients lie in shared memory with what the filters see beyond the tile, so each number is read once
// and nothing of twice the length is ever written. Nothing of ATen is included, so this compiles in seconds.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "core/kernels/accumulate.cuh"
#include "core/kernels/anti_aliased_snake/args.h"

namespace voxtorch::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 512;               // outputs of a block
constexpr int kBefore = kSnakeHalf / 2;  // places of the phases that a tile sees on each side
constexpr int kPlaces = kTile + 2 * kBefore;
constexpr int kSeen = kPlaces + 2 * kBefore;  // and of the input

__device__ float sine(float x) { return sinf(x); }
__device__ double sine(double x) { return sin(x); }
__device__ float cosine(float x) { return cosf(x); }
__device__ double cosine(double x) { return cos(x); }

// What a block works on. Place k of the phases is place first - kBefore + k of the row.
template <typename T>
struct Tile {
  using Acc = typename Accumulator<T>::type;

  __device__ explicit Tile(const SnakeInputs& in)
      : time(in.time),
        row(blockIdx.x / ((in.time + kTile - 1) / kTile)),
        first(static_cast<int64_t>(blockIdx.x) % ((in.time + kTile - 1) / kTile) * kTile),
        start(first - kBefore),
        frequency(static_cast<const Acc*>(in.frequency)[row % in.channels]),
        magnitude(static_cast<const Acc*>(in.magnitude)[row % in.channels]) {
#pragma unroll
    for (int k = 0; k < kSnakeTaps; ++k) {
      up[k] = 2 * static_cast<const Acc*>(in.up)[k];  // half of what the filter sees were zeros
      down[k] = static_cast<const Acc*>(in.down)[k];
    }
  }

  // The input around the tile, its ends repeated.
  __device__ void load(Acc* seen, const void* from) const {
    const T* const data = static_cast<const T*>(from) + row * time;
    for (int k = threadIdx.x; k < kSeen; k += kThreads) {
      const int64_t place = start - kBefore + k;
      seen[k] = static_cast<Acc>(data[place < 0 ? 0 : place < time ? place : time - 1]);
    }
  }

  // From 6 neighbors of `seen`, of which place k of the phases is at k + kBefore.
  __device__ static Acc even_of(const Acc* seen, const Acc (&taps)[kSnakeTaps], int k) {
    Acc sum = 0;
#pragma unroll
    for (int q = 0; q < kSnakeHalf; ++q) sum += taps[2 * q + 1] * seen[k + kSnakeHalf - 1 - q];
    return sum;
  }
  __device__ static Acc odd_of(const Acc* seen, const Acc (&taps)[kSnakeTaps], int k) {
    Acc sum = 0;
#pragma unroll
    for (int q = 0; q < kSnakeHalf; ++q) sum += taps[2 * q] * seen[k + kSnakeHalf - q];
    return sum;
  }

  const int64_t time, row, first, start;
  const Acc frequency, magnitude;
  Acc up[kSnakeTaps], down[kSnakeTaps];
};

template <typename T>
__global__ void __launch_bounds__(kThreads) forward_kernel(SnakeForward args) {
  using Acc = typename Accumulator<T>::type;
  __shared__ Acc seen[kSeen];
  __shared__ Acc even[kPlaces];
  __shared__ Acc odd[kPlaces];
  const Tile<T> tile(args.inputs);
  const auto activated = [&](Acc x) {
    const Acc s = sine(x * tile.frequency);
    return x + tile.magnitude * (s * s);
  };
  tile.load(seen, args.inputs.input);
  __syncthreads();
  for (int k = threadIdx.x; k < kPlaces; k += kThreads) {
    const int64_t place = tile.start + k;
    if (place < 0 || place >= tile.time) continue;
    even[k] = activated(tile.even_of(seen, tile.up, k));
    odd[k] = activated(tile.odd_of(seen, tile.up, k));
  }
  __syncthreads();
  // Beyond its ends the doubled signal repeats its first and its last number.
  const auto even_at = [&](int k) {
    const int64_t place = tile.start + k;
    return place < 0 ? even[k - place] : place < tile.time ? even[k] : odd[tile.time - 1 - tile.start];
  };
  const auto odd_at = [&](int k) {
    const int64_t place = tile.start + k;
    return place < 0 ? even[k - place] : place < tile.time ? odd[k] : odd[tile.time - 1 - tile.start];
  };
  T* const output = static_cast<T*>(args.output) + tile.row * tile.time;
  for (int k = threadIdx.x; k < kTile && tile.first + k < tile.time; k += kThreads) {
    Acc sum = 0;
#pragma unroll
    for (int q = 0; q < kSnakeHalf; ++q)
      sum += tile.down[2 * q + 1] * even_at(k + q + 1) + tile.down[2 * q] * odd_at(k + q);
    output[tile.first + k] = narrow<T, Acc>(sum);
  }
}

// The gradient of the doubled signal's place `place`, which may lie beyond the row, after the second filter's
// transpose.
template <typename T, typename Acc>
__device__ Acc filtered(const T* grads, int64_t time, const Acc (&down)[kSnakeTaps], int64_t place, int odd) {
  Acc sum = 0;
#pragma unroll
  for (int q = 0; q < kSnakeHalf; ++q) {
    const int64_t i = place + 2 + odd - q;
    if (i >= 0 && i < time) sum += down[2 * q + 1 - odd] * static_cast<Acc>(grads[i]);
  }
  return sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) backward_kernel(SnakeBackward args) {
  using Acc = typename Accumulator<T>::type;
  __shared__ Acc seen[kSeen];
  __shared__ Acc even[kPlaces];
  __shared__ Acc odd[kPlaces];
  __shared__ Acc sums[2][kThreads];
  const Tile<T> tile(args.inputs);
  const int64_t time = tile.time;
  const T* const grads = static_cast<const T*>(args.grad_output) + tile.row * time;
  tile.load(seen, args.inputs.input);
  __syncthreads();
  Acc to_frequency = 0, to_magnitude = 0;
  for (int k = threadIdx.x; k < kPlaces; k += kThreads) {
    const int64_t place = tile.start + k;
    if (place < 0 || place >= time) {
      even[k] = odd[k] = 0;
      continue;
    }
    Acc both[2] = {filtered(grads, time, tile.down, place, 0), filtered(grads, time, tile.down, place, 1)};
    // The first and the last number were repeated beyond the ends.
    for (int n = 1; n <= kBefore && place == 0; ++n)
      both[0] += filtered(grads, time, tile.down, -n, 0) + filtered(grads, time, tile.down, -n, 1);
    for (int n = 0; n < kBefore && place == time - 1; ++n)
      both[1] += filtered(grads, time, tile.down, time + n, 0) + filtered(grads, time, tile.down, time + n, 1);
    const bool owned = k >= kBefore && k < kBefore + kTile;
#pragma unroll
    for (int phase = 0; phase < 2; ++phase) {
      const Acc x = phase == 0 ? tile.even_of(seen, tile.up, k) : tile.odd_of(seen, tile.up, k);
      const Acc s = sine(x * tile.frequency), c = cosine(x * tile.frequency);
      const Acc turned = both[phase] * tile.magnitude * (2 * s * c);
      if (owned) {
        to_frequency += turned * x;
        to_magnitude += both[phase] * (s * s);
      }
      both[phase] += turned * tile.frequency;
    }
    even[k] = both[0];
    odd[k] = both[1];
  }
  sums[0][threadIdx.x] = to_frequency;
  sums[1][threadIdx.x] = to_magnitude;
  __syncthreads();
  // The first filter's transpose, at a place of the row or beyond it.
  const auto gathered = [&](int k) {
    Acc sum = 0;
#pragma unroll
    for (int q = 0; q < kSnakeHalf; ++q) {
      if (k + q + 1 >= 0 && k + q + 1 < kPlaces) sum += tile.up[2 * q + 1] * even[k + q + 1];
      if (k + q >= 0 && k + q < kPlaces) sum += tile.up[2 * q] * odd[k + q];
    }
    return sum;
  };
  T* const result = static_cast<T*>(args.grad_input) + tile.row * time;
  for (int k = threadIdx.x; k < kTile && tile.first + k < time; k += kThreads) {
    Acc sum = gathered(k);
    for (int n = 1; n <= kBefore && tile.first + k == 0; ++n) sum += gathered(k - n);
    for (int n = 1; n <= kBefore && tile.first + k == time - 1; ++n) sum += gathered(k + n);
    result[tile.first + k] = narrow<T, Acc>(sum);
  }
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      sums[0][threadIdx.x] += sums[0][threadIdx.x + half];
      sums[1][threadIdx.x] += sums[1][threadIdx.x + half];
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    static_cast<Acc*>(args.grad_frequency)[blockIdx.x] = sums[0][0];
    static_cast<Acc*>(args.grad_magnitude)[blockIdx.x] = sums[1][0];
  }
}

template <typename T>
void launch(const SnakeForward& args, unsigned blocks, cudaStream_t stream) {
  forward_kernel<T><<<blocks, kThreads, 0, stream>>>(args);
}
template <typename T>
void launch(const SnakeBackward& args, unsigned blocks, cudaStream_t stream) {
  backward_kernel<T><<<blocks, kThreads, 0, stream>>>(args);
}

template <typename Args>
int launch_snake(SnakeType type, const Args& args, void* stream) {
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  const unsigned blocks = static_cast<unsigned>(args.inputs.rows * snake_tiles(args.inputs.time));
  switch (type) {
    case SnakeType::kFloat32:
      launch<float>(args, blocks, on);
      break;
    case SnakeType::kBFloat16:
      launch<__nv_bfloat16>(args, blocks, on);
      break;
    case SnakeType::kFloat16:
      launch<__half>(args, blocks, on);
      break;
    case SnakeType::kFloat64:
      launch<double>(args, blocks, on);
      break;
  }
  return cudaGetLastError();
}

}  // namespace

int64_t snake_tiles(int64_t time) { return (time + kTile - 1) / kTile; }
int launch_snake_forward(SnakeType type, const SnakeForward& args, void* stream) {
  return launch_snake(type, args, stream);
}
int launch_snake_backward(SnakeType type, const SnakeBackward& args, void* stream) {
  return launch_snake(type, args, stream);
}

}  // namespace voxtorch::kernels

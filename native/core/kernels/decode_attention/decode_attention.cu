// decode_attention on CUDA (flash-decoding, Dao et al. 2023): a block takes a part of the places of one key head, for
// up to eight of the query heads that share it, so that keys and values are read once. The last block of a head to be
// done, by a ticket, joins the parts. The grid is that of the whole cache, since only the device knows how much of it
// is filled: blocks beyond leave at once. Scores, weights and sums are float32. Nothing of ATen is included, so this
// compiles in seconds.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "core/kernels/accumulate.cuh"
#include "core/kernels/decode_attention/args.h"

namespace voxtorch::kernels {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kMostChunk = 512;
constexpr float kNone = -INFINITY;

template <typename T, int Width>
struct alignas(sizeof(T) * Width) Pack {
  T lane[Width];
};

struct Block {
  int64_t row, kv_head, first_head;  // of the query heads, `count` from first_head on
  int count;
  int64_t first, last;  // places that the token sees, before the mask
  int64_t begin, end;   // those of this block
  int64_t own, active;  // the block's number among those that see anything, and how many these are
};

__device__ Block block_of(const DecodeAttention& args, int64_t chunk) {
  Block b;
  const int64_t group = args.heads / args.kv_heads, passes = (group + kDecodeHeads - 1) / kDecodeHeads;
  const int64_t pass = static_cast<int64_t>(blockIdx.y) % passes;
  b.kv_head = static_cast<int64_t>(blockIdx.y) / passes;
  b.row = blockIdx.z;
  b.first_head = b.kv_head * group + pass * kDecodeHeads;
  const int64_t left = group - pass * kDecodeHeads;
  b.count = static_cast<int>(left < kDecodeHeads ? left : kDecodeHeads);
  const int64_t position = *args.position;
  b.last = position < 0 ? 0 : position < args.capacity ? position : args.capacity - 1;
  b.first = args.window > 0 && b.last >= args.window ? b.last - args.window + 1 : 0;
  b.own = static_cast<int64_t>(blockIdx.x) - b.first / chunk;
  b.active = b.last / chunk - b.first / chunk + 1;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * chunk;
  b.begin = begin < b.first ? b.first : begin;
  b.end = begin + chunk <= b.last ? begin + chunk : b.last + 1;
  return b;
}

__device__ bool is_seen(const DecodeAttention& args, const Block& b, int64_t place) {
  if (place == b.last || !args.mask) return true;
  return place < args.mask_columns && args.mask[b.row * args.mask_row + place];
}

template <typename T>
__device__ const T* place_of(const DecodePlaces& places, const Block& b, int64_t place) {
  return static_cast<const T*>(places.data) + b.row * places.row + b.kv_head * places.head + place * places.place;
}

// The sum, or the maximum, over a warp, for every lane.
__device__ float warp_sum(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}
__device__ float warp_maximum(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, value, offset);
    // A NaN stays one.
    value = other > value || other != other ? other : value;
  }
  return value;
}

// `lanes` lanes read a key, Width dimensions at once each, as often as it takes; Heads query heads at most.
template <typename T, int Heads, int Width>
__global__ void __launch_bounds__(kThreads, 3) decode_kernel(DecodeAttention args, int64_t chunk, int lanes) {
  __shared__ float query[Heads][kMostDecodeDim];
  __shared__ float weights[Heads][kMostChunk];
  __shared__ bool seen[kMostChunk];
  __shared__ float maxima[Heads];
  __shared__ float totals[Heads];
  __shared__ bool is_last;
  const Block b = block_of(args, chunk);
  if (b.own < 0 || b.own >= b.active) return;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int dim = static_cast<int>(args.dim), size = static_cast<int>(b.end - b.begin);
  const int64_t head = b.row * args.heads + b.first_head;

  for (int i = thread; i < b.count * dim; i += kThreads) {
    query[i / dim][i % dim] = static_cast<float>(static_cast<const T*>(args.query)[head * dim + i]) * args.scale;
  }
  for (int i = thread; i < size; i += kThreads) seen[i] = is_seen(args, b, b.begin + i);
  __syncthreads();

  // Scores. All lanes of a warp stay together, since those of a key add up what they have.
  const int keys_at_once = kWarp / lanes, part = lane % lanes;
  for (int key = warp * keys_at_once; key < size; key += kWarps * keys_at_once) {
    const int own = key + lane / lanes;
    const bool reads = own < size && seen[own];
    float sums[Heads] = {};
    if (reads) {
      const T* const from = place_of<T>(args.keys, b, b.begin + own);
      for (int d = part * Width; d < dim; d += lanes * Width) {
        Pack<T, Width> k;
        if constexpr (Width == 1) {
          k.lane[0] = from[d * args.keys.dim];
        } else {
          k = *reinterpret_cast<const Pack<T, Width>*>(from + d);
        }
#pragma unroll
        for (int h = 0; h < Heads; ++h) {
          if (h >= b.count) continue;
#pragma unroll
          for (int i = 0; i < Width; ++i) sums[h] += query[h][d + i] * static_cast<float>(k.lane[i]);
        }
      }
    }
#pragma unroll
    for (int h = 0; h < Heads; ++h) {
      for (int offset = lanes / 2; offset > 0; offset /= 2) {
        sums[h] += __shfl_xor_sync(0xffffffffu, sums[h], offset);
      }
      if (part == 0 && own < size && h < b.count) weights[h][own] = reads ? sums[h] : kNone;
    }
  }
  __syncthreads();

  // Weights, and what they add up to: a warp a head.
  for (int h = warp; h < b.count; h += kWarps) {
    float largest = kNone, total = 0;
    for (int i = lane; i < size; i += kWarp) {
      const float score = weights[h][i];
      largest = score > largest || score != score ? score : largest;
    }
    largest = warp_maximum(largest);
    for (int i = lane; i < size; i += kWarp) {
      // A part may see nothing: it weighs nothing.
      const float weight = largest == kNone ? 0.0f : expf(weights[h][i] - largest);
      weights[h][i] = weight;
      total += weight;
    }
    total = warp_sum(total);
    if (lane == 0) {
      maxima[h] = largest;
      totals[h] = total;
    }
  }
  __syncthreads();

  // Sums of values. Threads next to each other have dimensions next to each other; where a key is shorter than a block,
  // `parts` of the block take keys in turn and add up what they have in the place of the queries.
  int width = kWarp;
  while (width < dim) width *= 2;
  const int parts = kThreads / width, turn = thread / width, d = thread % width;
  float sums[Heads] = {};
  if (d < dim) {
#pragma unroll 4
    for (int key = turn; key < size; key += parts) {
      if (!seen[key]) continue;
      const float value = static_cast<float>(place_of<T>(args.values, b, b.begin + key)[d * args.values.dim]);
#pragma unroll
      for (int h = 0; h < Heads; ++h) {
        if (h < b.count) sums[h] += weights[h][key] * value;
      }
    }
  }
  for (int step = 0; step < parts; ++step) {
    if (turn == step && d < dim) {
#pragma unroll
      for (int h = 0; h < Heads; ++h) {
        if (h < b.count) query[h][d] = step == 0 ? sums[h] : query[h][d] + sums[h];
      }
    }
    __syncthreads();
  }

  const int64_t splits = gridDim.x;
  const auto partial = [&](int h, int64_t split) { return args.partial + ((head + h) * splits + split) * (dim + 2); };
  T* const output = static_cast<T*>(args.output) + head * dim;
  if (b.active == 1) {
    for (int i = thread; i < b.count * dim; i += kThreads) {
      output[i] = narrow<T, float>(query[i / dim][i % dim] / totals[i / dim]);
    }
    return;
  }
  for (int i = thread; i < b.count * dim; i += kThreads) partial(i / dim, b.own)[i % dim] = query[i / dim][i % dim];
  if (thread < b.count) {
    partial(thread, b.own)[dim] = maxima[thread];
    partial(thread, b.own)[dim + 1] = totals[thread];
  }
  __syncthreads();
  if (thread == 0) {
    // What all threads of the block wrote is there before the ticket is drawn, what others wrote before theirs is seen
    // after it.
    __threadfence();
    // The last one that is drawn sets the ticket to zero again, for the next launch.
    const unsigned others = static_cast<unsigned>(b.active) - 1;
    is_last = atomicInc(args.tickets + b.row * gridDim.y + blockIdx.y, others) == others;
    __threadfence();
  }
  __syncthreads();
  if (!is_last) return;

  for (int h = warp; h < b.count; h += kWarps) {
    float largest = kNone, total = 0;
    for (int64_t s = lane; s < b.active; s += kWarp) {
      const float score = __ldcg(partial(h, s) + dim);
      largest = score > largest || score != score ? score : largest;
    }
    largest = warp_maximum(largest);
    for (int64_t s = lane; s < b.active; s += kWarp) {
      total += __ldcg(partial(h, s) + dim + 1) * expf(__ldcg(partial(h, s) + dim) - largest);
    }
    total = warp_sum(total);
    if (lane == 0) {
      maxima[h] = largest;
      totals[h] = total;
    }
  }
  __syncthreads();
  for (int i = thread; i < b.count * dim; i += kThreads) {
    const int h = i / dim;
    float sum = 0;
    for (int64_t s = 0; s < b.active; ++s) {
      sum += __ldcg(partial(h, s) + i % dim) * expf(__ldcg(partial(h, s) + dim) - maxima[h]);
    }
    output[i] = narrow<T, float>(sum / totals[h]);
  }
}

template <typename T>
bool reads_vectors(const DecodePlaces& keys, int64_t dim) {
  constexpr int64_t kWidth = 16 / sizeof(T);
  return keys.dim == 1 && dim % kWidth == 0 && keys.row % kWidth == 0 && keys.head % kWidth == 0 &&
         keys.place % kWidth == 0 && reinterpret_cast<uintptr_t>(keys.data) % 16 == 0;
}

template <typename T, int Heads, int Width>
void launch(const DecodeAttention& args, cudaStream_t stream) {
  int lanes = 1;
  while (lanes < kWarp && lanes * Width < args.dim) lanes *= 2;
  const dim3 grid(static_cast<unsigned>(decode_splits(args.capacity)),
                  static_cast<unsigned>(args.kv_heads * decode_passes(args.heads, args.kv_heads)),
                  static_cast<unsigned>(args.rows));
  decode_kernel<T, Heads, Width><<<grid, kThreads, 0, stream>>>(args, decode_chunk(args.capacity), lanes);
}

template <typename T, int Heads>
void launch_width(const DecodeAttention& args, cudaStream_t stream) {
  if (reads_vectors<T>(args.keys, args.dim)) return launch<T, Heads, 16 / sizeof(T)>(args, stream);
  launch<T, Heads, 1>(args, stream);
}

template <typename T>
void launch_heads(const DecodeAttention& args, cudaStream_t stream) {
  const int64_t group = args.heads / args.kv_heads;
  if (group == 1) return launch_width<T, 1>(args, stream);
  if (group == 2) return launch_width<T, 2>(args, stream);
  if (group <= 4) return launch_width<T, 4>(args, stream);
  launch_width<T, static_cast<int>(kDecodeHeads)>(args, stream);
}

}  // namespace

int launch_decode_attention(DecodeType type, const DecodeAttention& args, void* stream) {
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (type) {
    case DecodeType::kFloat32:
      launch_heads<float>(args, on);
      break;
    case DecodeType::kBFloat16:
      launch_heads<__nv_bfloat16>(args, on);
      break;
    case DecodeType::kFloat16:
      launch_heads<__half>(args, on);
      break;
  }
  return cudaGetLastError();
}

}  // namespace voxtorch::kernels

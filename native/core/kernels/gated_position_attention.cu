// gated_position_attention on CUDA, in the manner of FlashAttention-2 (Dao 2023, https://arxiv.org/abs/2307.08691):
// tiles of scores in registers, a running maximum and sum per row, the probabilities computed again in the backward.
// Sums and products are float32 (float64 for float64) on the ordinary cores, not on tensor cores. No atomics: the same
// bits every time. Nothing of ATen is included, so this compiles in seconds.
//
// All kernels lay a tile of as many queries as keys over 16 x 16 threads: thread (y, x) holds the queries y + 16 r
// and the keys x + 16 c. So the threads of one query are 16 neighbouring lanes, which reduce by shuffles, and the keys
// of one thread are those that one call of Philox serves (gated_position_attention_dropout.h).
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "core/kernels/gated_position_attention_args.h"
#include "core/kernels/gated_position_attention_dropout.h"

namespace voxtorch::kernels {
namespace {

constexpr int kSide = 16;
constexpr int kThreads = kSide * kSide;

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

__device__ float exponential(float value) { return expf(value); }
__device__ double exponential(double value) { return exp(value); }
__device__ float logarithm(float value) { return logf(value); }
__device__ double logarithm(double value) { return log(value); }

template <typename Acc>
__device__ Acc infinite() {
  return static_cast<Acc>(INFINITY);
}

// Over the 16 threads of a query; every one gets the result.
template <typename Acc>
__device__ Acc row_max(Acc value) {
  for (int lane = kSide / 2; lane > 0; lane /= 2) {
    const Acc other = __shfl_xor_sync(0xffffffffu, value, lane);
    value = other > value ? other : value;
  }
  return value;
}
template <typename Acc>
__device__ Acc row_sum(Acc value) {
  for (int lane = kSide / 2; lane > 0; lane /= 2) value += __shfl_xor_sync(0xffffffffu, value, lane);
  return value;
}

// T: the inputs' type. Tile: queries and keys of a tile. MaxDim: the dim that the shared tiles have room for; what dim
// leaves of it is zero.
template <typename T, int Tile, int MaxDim>
struct Kernel {
  using Acc = typename Accumulator<T>::type;
  static constexpr int kPer = Tile / kSide;       // queries, and keys, of a thread
  static constexpr int kPerDim = MaxDim / kSide;  // dimensions of a thread, x + 16 e
  static constexpr int kPitch = MaxDim + 1;       // odd, so that the lanes of a column lie in different banks
  static constexpr int kRows = Tile * kPitch;     // numbers in a shared tile of queries, keys or values
  static constexpr int kScorePitch = Tile + 1;
  static constexpr int kScores = Tile * kScorePitch;  // and in one of scores

  static constexpr size_t kForwardBytes = (2 * kRows + kScores) * sizeof(Acc);
  static constexpr size_t kQueryBytes = (3 * kRows + kScores + Tile) * sizeof(Acc);
  static constexpr size_t kKeyBytes = (4 * kRows + kScores) * sizeof(Acc);

  // Which head and tile this block works on, and where its thread stands.
  struct Place {
    int64_t batch, head, row;  // row: in batch * heads
    int64_t first;             // of the block's tile, a query or a key
    int y, x;
  };

  __device__ static int64_t tiles(const AttentionInputs& in) { return (in.time + Tile - 1) / Tile; }

  __device__ static Place place(const AttentionInputs& in) {
    const int64_t row = blockIdx.x / tiles(in);
    return {row / in.heads,
            row % in.heads,
            row,
            static_cast<int64_t>(blockIdx.x) % tiles(in) * Tile,
            static_cast<int>(threadIdx.x) / kSide,
            static_cast<int>(threadIdx.x) % kSide};
  }

  // Rows [first, first + Tile) of one head into shared memory; zero beyond time and dim.
  __device__ static void load(Acc* shared, const Strided<const void>& from, const AttentionInputs& in, const Place& at,
                              int64_t first) {
    const T* data = static_cast<const T*>(from.data) + at.batch * from.batch + at.head * from.head;
    for (int i = threadIdx.x; i < Tile * MaxDim; i += kThreads) {
      const int row = i / MaxDim;
      const int d = i % MaxDim;
      const bool inside = first + row < in.time && d < in.dim;
      shared[row * kPitch + d] =
          inside ? static_cast<Acc>(data[(first + row) * from.time + d * from.dim]) : static_cast<Acc>(0);
    }
  }

  // The products of this thread's rows of a and of b.
  __device__ static void multiply(Acc (&product)[kPer][kPer], const Acc* a, const Acc* b, const Place& at) {
    for (int r = 0; r < kPer; ++r) {
      for (int c = 0; c < kPer; ++c) product[r][c] = 0;
    }
#pragma unroll 8
    for (int d = 0; d < MaxDim; ++d) {
      Acc left[kPer], right[kPer];
#pragma unroll
      for (int r = 0; r < kPer; ++r) left[r] = a[(at.y + kSide * r) * kPitch + d];
#pragma unroll
      for (int c = 0; c < kPer; ++c) right[c] = b[(at.x + kSide * c) * kPitch + d];
#pragma unroll
      for (int r = 0; r < kPer; ++r) {
#pragma unroll
        for (int c = 0; c < kPer; ++c) product[r][c] += left[r] * right[c];
      }
    }
  }

  // sum[r][e] += over i of scores(y + 16 r, i) * rows(i, x + 16 e), where scores(m, i) is at m * across + i * along.
  __device__ static void accumulate(Acc (&sum)[kPer][kPerDim], const Acc* scores, int across, int along,
                                    const Acc* rows, const Place& at) {
#pragma unroll 4
    for (int i = 0; i < Tile; ++i) {
      Acc left[kPer], right[kPerDim];
#pragma unroll
      for (int r = 0; r < kPer; ++r) left[r] = scores[(at.y + kSide * r) * across + i * along];
#pragma unroll
      for (int e = 0; e < kPerDim; ++e) right[e] = rows[i * kPitch + at.x + kSide * e];
#pragma unroll
      for (int r = 0; r < kPer; ++r) {
#pragma unroll
        for (int e = 0; e < kPerDim; ++e) sum[r][e] += left[r] * right[e];
      }
    }
  }

  __device__ static void put(Acc* scores, const Acc (&values)[kPer][kPer], const Place& at) {
    for (int r = 0; r < kPer; ++r) {
      for (int c = 0; c < kPer; ++c) scores[(at.y + kSide * r) * kScorePitch + at.x + kSide * c] = values[r][c];
    }
  }

  // sum[r] times factor[r] as the rows first + y + 16 r of one head.
  __device__ static void write(const Strided<void>& to, const Acc (&sum)[kPer][kPerDim], const Acc (&factor)[kPer],
                               const AttentionInputs& in, const Place& at) {
    T* data = static_cast<T*>(to.data) + at.batch * to.batch + at.head * to.head;
    for (int r = 0; r < kPer; ++r) {
      const int64_t row = at.first + at.y + kSide * r;
      if (row >= in.time) continue;
      for (int e = 0; e < kPerDim; ++e) {
        const int d = at.x + kSide * e;
        if (d < in.dim) data[row * to.time + d * to.dim] = narrow<T, Acc>(sum[r][e] * factor[r]);
      }
    }
  }

  __device__ static bool attends(const AttentionInputs& in, const Place& at, int64_t key) {
    return key < in.time && (in.key_mask == nullptr || in.key_mask[at.batch * in.time + key]);
  }

  // relative[key - query + time - 1]; zero outside of the sequence.
  __device__ static Acc distance(const AttentionInputs& in, const Place& at, int64_t query, int64_t key) {
    if (query >= in.time || key >= in.time) return 0;
    return static_cast<const Acc*>(in.relative)[at.head * (2 * in.time - 1) + key - query + in.time - 1];
  }

  // A number of each query, Acc [batch, heads, time]; `outside` beyond the sequence.
  __device__ static Acc of_query(const void* numbers, const AttentionInputs& in, const Place& at, int64_t query,
                                 Acc outside) {
    return query < in.time ? static_cast<const Acc*>(numbers)[at.row * in.time + query] : outside;
  }

  // What dropout multiplies the probabilities of one query and this thread's keys of a tile by.
  __device__ static void dropout_factors(Acc (&factors)[kPer], const AttentionInputs& in, const Place& at,
                                         int64_t query, int64_t first_key) {
    for (int c = 0; c < kPer; ++c) factors[c] = 1;
    if (in.dropout.threshold == 0) return;
    const PhiloxWords words = dropout_words(in.dropout, static_cast<uint32_t>(at.row), static_cast<uint32_t>(query),
                                            dropout_counter(first_key + at.x));
    for (int c = 0; c < kPer; ++c) {
      const bool kept = words.word[dropout_word(first_key + at.x + kSide * c)] >= in.dropout.threshold;
      factors[c] = kept ? static_cast<Acc>(in.dropout.scale) : static_cast<Acc>(0);
    }
  }

  // A block: one tile of queries of one head, all keys.
  __device__ static void forward(const AttentionForward& args, Acc* shared) {
    const AttentionInputs& in = args.inputs;
    const Place at = place(in);
    Acc* queries = shared;
    Acc* keys = queries + kRows;  // and the values, in turn
    Acc* scores = keys + kRows;
    const Acc scale = static_cast<Acc>(in.scale);

    Acc gate[kPer], top[kPer], weight[kPer];
    Acc sum[kPer][kPerDim] = {};
    for (int r = 0; r < kPer; ++r) {
      gate[r] = of_query(in.gate, in, at, at.first + at.y + kSide * r, 0);
      top[r] = -infinite<Acc>();
      weight[r] = 0;
    }
    load(queries, in.query, in, at, at.first);
    for (int64_t first = 0; first < in.time; first += Tile) {
      __syncthreads();  // the queries are there; the last tile's values are read
      load(keys, in.key, in, at, first);
      __syncthreads();
      Acc p[kPer][kPer];
      multiply(p, queries, keys, at);
      for (int r = 0; r < kPer; ++r) {
        const int64_t query = at.first + at.y + kSide * r;
        Acc best = -infinite<Acc>();
        for (int c = 0; c < kPer; ++c) {
          const int64_t key = first + at.x + kSide * c;
          p[r][c] = attends(in, at, key) ? scale * p[r][c] + gate[r] * distance(in, at, query, key) : -infinite<Acc>();
          best = p[r][c] > best ? p[r][c] : best;
        }
        best = row_max(best);
        best = top[r] > best ? top[r] : best;
        const Acc shift = best == -infinite<Acc>() ? static_cast<Acc>(0) : best;
        const Acc correction = exponential(top[r] - shift);  // zero in the first tile, whose sums are zero too
        Acc factors[kPer];
        dropout_factors(factors, in, at, query, first);
        Acc total = 0;
        for (int c = 0; c < kPer; ++c) {
          p[r][c] = exponential(p[r][c] - shift);
          total += p[r][c];
          p[r][c] *= factors[c];
        }
        weight[r] = weight[r] * correction + row_sum(total);
        for (int e = 0; e < kPerDim; ++e) sum[r][e] *= correction;
        top[r] = best;
      }
      put(scores, p, at);
      __syncthreads();  // the scores are there; the keys are read
      load(keys, in.value, in, at, first);
      __syncthreads();
      accumulate(sum, scores, kScorePitch, 1, keys, at);
    }

    Acc share[kPer];
    for (int r = 0; r < kPer; ++r) {
      share[r] = weight[r] == 0 ? static_cast<Acc>(0) : 1 / weight[r];
      const int64_t query = at.first + at.y + kSide * r;
      if (at.x == 0 && query < in.time) {
        static_cast<Acc*>(args.logsumexp)[at.row * in.time + query] =
            weight[r] == 0 ? infinite<Acc>() : top[r] + logarithm(weight[r]);
      }
    }
    write(args.output, sum, share, in, at);
  }

  // What the backward knows of a thread's queries.
  struct Queries {
    Acc gate[kPer], level[kPer], correction[kPer];
  };

  __device__ static Queries queries_from(const AttentionBackward& args, const Place& at, int64_t first) {
    Queries result;
    for (int r = 0; r < kPer; ++r) {
      const int64_t query = first + at.y + kSide * r;
      result.gate[r] = of_query(args.inputs.gate, args.inputs, at, query, 0);
      result.level[r] = of_query(args.logsumexp, args.inputs, at, query, infinite<Acc>());
      result.correction[r] = of_query(args.correction, args.inputs, at, query, 0);
    }
    return result;
  }

  // From the products of queries and keys, and of output gradients and values: the dropped probabilities and the
  // gradients of the scores, in their places.
  __device__ static void differentiate(Acc (&p)[kPer][kPer], Acc (&grad)[kPer][kPer], const Queries& known,
                                       const AttentionInputs& in, const Place& at, int64_t first_query,
                                       int64_t first_key) {
    for (int r = 0; r < kPer; ++r) {
      const int64_t query = first_query + at.y + kSide * r;
      Acc factors[kPer];
      dropout_factors(factors, in, at, query, first_key);
      for (int c = 0; c < kPer; ++c) {
        const int64_t key = first_key + at.x + kSide * c;
        if (query < in.time && attends(in, at, key)) {
          const Acc score = static_cast<Acc>(in.scale) * p[r][c] + known.gate[r] * distance(in, at, query, key);
          const Acc probability = exponential(score - known.level[r]);
          p[r][c] = probability * factors[c];
          grad[r][c] = probability * (grad[r][c] * factors[c] - known.correction[r]);
        } else {
          p[r][c] = 0;
          grad[r][c] = 0;
        }
      }
    }
  }

  // A block: one tile of queries of one head, all keys; the gradients of the queries, the gates and, summed along the
  // diagonals of each tile, of the distances. The block's part of the latter is `span` numbers, of which number n is
  // that of key - query = n - (Tile - 1) - at.first.
  __device__ static int64_t span(const AttentionInputs& in) { return (tiles(in) + 1) * Tile; }

  __device__ static void backward_queries(const AttentionBackward& args, Acc* shared) {
    const AttentionInputs& in = args.inputs;
    const Place at = place(in);
    Acc* queries = shared;
    Acc* grads = queries + kRows;
    Acc* keys = grads + kRows;  // and the values, in turn
    Acc* scores = keys + kRows;
    Acc* gates = scores + kScores;
    Acc* part = static_cast<Acc*>(args.partials) + blockIdx.x * span(in);

    const Queries known = queries_from(args, at, at.first);
    Acc sum[kPer][kPerDim] = {};
    Acc to_gate[kPer] = {};
    load(queries, in.query, in, at, at.first);
    load(grads, args.grad_output, in, at, at.first);
    if (at.x == 0) {
      for (int r = 0; r < kPer; ++r) gates[at.y + kSide * r] = known.gate[r];
    }
    for (int64_t first = 0; first < in.time; first += Tile) {
      __syncthreads();  // the queries are there; the last tile's keys and scores are read, its part is written
      load(keys, in.value, in, at, first);
      __syncthreads();
      Acc p[kPer][kPer], grad[kPer][kPer];
      multiply(grad, grads, keys, at);
      __syncthreads();  // the values are read
      load(keys, in.key, in, at, first);
      __syncthreads();
      multiply(p, queries, keys, at);
      differentiate(p, grad, known, in, at, at.first, first);
      for (int r = 0; r < kPer; ++r) {
        for (int c = 0; c < kPer; ++c) {
          to_gate[r] += grad[r][c] * distance(in, at, at.first + at.y + kSide * r, first + at.x + kSide * c);
        }
      }
      put(scores, grad, at);
      __syncthreads();
      accumulate(sum, scores, kScorePitch, 1, keys, at);
      const int n = threadIdx.x;  // one diagonal a thread
      if (n < 2 * Tile - 1) {
        Acc total = 0;
        for (int q = 0; q < Tile; ++q) {
          const int k = n - (Tile - 1) + q;
          if (k >= 0 && k < Tile) total += gates[q] * scores[q * kScorePitch + k];
        }
        part[first + n] += total;
      }
    }

    Acc factor[kPer];
    for (int r = 0; r < kPer; ++r) {
      factor[r] = static_cast<Acc>(in.scale);
      const Acc total = row_sum(to_gate[r]);
      const int64_t query = at.first + at.y + kSide * r;
      if (at.x == 0 && query < in.time) static_cast<Acc*>(args.grad_gate)[at.row * in.time + query] = total;
    }
    write(args.grad_query, sum, factor, in, at);
  }

  // A block: one tile of keys of one head, all queries; the gradients of the keys and the values.
  __device__ static void backward_keys(const AttentionBackward& args, Acc* shared) {
    const AttentionInputs& in = args.inputs;
    const Place at = place(in);
    Acc* keys = shared;
    Acc* values = keys + kRows;
    Acc* queries = values + kRows;
    Acc* grads = queries + kRows;
    Acc* scores = grads + kRows;

    Acc key_sum[kPer][kPerDim] = {};
    Acc value_sum[kPer][kPerDim] = {};
    load(keys, in.key, in, at, at.first);
    load(values, in.value, in, at, at.first);
    for (int64_t first = 0; first < in.time; first += Tile) {
      __syncthreads();  // the last tile's queries, gradients and scores are read
      load(queries, in.query, in, at, first);
      load(grads, args.grad_output, in, at, first);
      __syncthreads();  // and the keys and values are there
      const Queries known = queries_from(args, at, first);
      Acc p[kPer][kPer], grad[kPer][kPer];
      multiply(p, queries, keys, at);
      multiply(grad, grads, values, at);
      differentiate(p, grad, known, in, at, first, at.first);
      put(scores, p, at);
      __syncthreads();
      accumulate(value_sum, scores, 1, kScorePitch, grads, at);
      __syncthreads();  // the probabilities are read
      put(scores, grad, at);
      __syncthreads();
      accumulate(key_sum, scores, 1, kScorePitch, queries, at);
    }

    Acc one[kPer], scale[kPer];
    for (int r = 0; r < kPer; ++r) {
      one[r] = 1;
      scale[r] = static_cast<Acc>(in.scale);
    }
    write(args.grad_value, value_sum, one, in, at);
    write(args.grad_key, key_sum, scale, in, at);
  }

  // A thread: one distance of one head, summed over the batch and the tiles of queries in their order.
  __device__ static void sum_partials(const AttentionBackward& args) {
    const AttentionInputs& in = args.inputs;
    const int64_t distances = 2 * in.time - 1;
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (index >= in.heads * distances) return;
    const int64_t head = index / distances;
    const int64_t difference = index % distances - (in.time - 1);  // key - query
    const Acc* parts = static_cast<const Acc*>(args.partials);
    Acc total = 0;
    for (int64_t batch = 0; batch < in.batch; ++batch) {
      for (int64_t tile = 0; tile < tiles(in); ++tile) {
        const int64_t n = difference + tile * Tile + (Tile - 1);
        if (n >= 0 && n < span(in)) total += parts[((batch * in.heads + head) * tiles(in) + tile) * span(in) + n];
      }
    }
    static_cast<Acc*>(args.grad_relative)[index] = total;
  }
};

extern __shared__ __align__(16) unsigned char shared_memory[];

template <typename K>
__global__ void __launch_bounds__(kThreads) forward_kernel(AttentionForward args) {
  K::forward(args, reinterpret_cast<typename K::Acc*>(shared_memory));
}
template <typename K>
__global__ void __launch_bounds__(kThreads) backward_queries_kernel(AttentionBackward args) {
  K::backward_queries(args, reinterpret_cast<typename K::Acc*>(shared_memory));
}
template <typename K>
__global__ void __launch_bounds__(kThreads) backward_keys_kernel(AttentionBackward args) {
  K::backward_keys(args, reinterpret_cast<typename K::Acc*>(shared_memory));
}
template <typename K>
__global__ void __launch_bounds__(kThreads) sum_partials_kernel(AttentionBackward args) {
  K::sum_partials(args);
}

template <typename Args>
cudaError_t launch(void (*kernel)(Args), int64_t blocks, size_t bytes, cudaStream_t stream, const Args& args) {
  // More than 48 KiB of shared memory has to be asked for.
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error != cudaSuccess) return error;
  kernel<<<static_cast<unsigned>(blocks), kThreads, bytes, stream>>>(args);
  return cudaGetLastError();
}

int64_t tile_count(int64_t time, int64_t tile) { return (time + tile - 1) / tile; }

// Large tiles where shared memory holds them: 64 x 64 up to dim 64, 32 x 32 beyond and for float64.
int64_t tile_of(AttentionType type, int64_t dim) { return type == AttentionType::kFloat64 || dim > 64 ? 32 : 64; }

// Calls run(Kernel<...>()) with the one for the type and dim.
template <typename Run>
cudaError_t with_kernel(AttentionType type, int64_t dim, Run run) {
  const bool small = dim <= 64;
  switch (type) {
    case AttentionType::kFloat32:
      return small ? run(Kernel<float, 64, 64>()) : run(Kernel<float, 32, 128>());
    case AttentionType::kBFloat16:
      return small ? run(Kernel<__nv_bfloat16, 64, 64>()) : run(Kernel<__nv_bfloat16, 32, 128>());
    case AttentionType::kFloat16:
      return small ? run(Kernel<__half, 64, 64>()) : run(Kernel<__half, 32, 128>());
    case AttentionType::kFloat64:
      return small ? run(Kernel<double, 32, 64>()) : run(Kernel<double, 32, 128>());
  }
  return cudaErrorInvalidValue;
}

}  // namespace

int64_t attention_blocks(AttentionType type, const AttentionInputs& inputs) {
  return inputs.batch * inputs.heads * tile_count(inputs.time, tile_of(type, inputs.dim));
}

int64_t attention_partials(AttentionType type, const AttentionInputs& inputs) {
  const int64_t tile = tile_of(type, inputs.dim);
  return attention_blocks(type, inputs) * (tile_count(inputs.time, tile) + 1) * tile;
}

int launch_attention_forward(AttentionType type, const AttentionForward& args, void* stream) {
  return with_kernel(type, args.inputs.dim, [&](auto kernel) {
    using K = decltype(kernel);
    return launch(forward_kernel<K>, attention_blocks(type, args.inputs), K::kForwardBytes,
                  static_cast<cudaStream_t>(stream), args);
  });
}

int launch_attention_backward(AttentionType type, const AttentionBackward& args, void* stream) {
  return with_kernel(type, args.inputs.dim, [&](auto kernel) {
    using K = decltype(kernel);
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    const int64_t blocks = attention_blocks(type, args.inputs);
    const int64_t distances = args.inputs.heads * (2 * args.inputs.time - 1);
    cudaError_t error = launch(backward_queries_kernel<K>, blocks, K::kQueryBytes, on, args);
    if (error == cudaSuccess) error = launch(backward_keys_kernel<K>, blocks, K::kKeyBytes, on, args);
    if (error == cudaSuccess) error = launch(sum_partials_kernel<K>, tile_count(distances, kThreads), 0, on, args);
    return error;
  });
}

}  // namespace voxtorch::kernels

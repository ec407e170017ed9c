// gated_position_attention on CUDA, in the manner of FlashAttention-2 (Dao 2023, https://arxiv.org/abs/2307.08691):
// tiles of scores in registers, a running maximum and sum per row, the probabilities computed again in the backward.
// bfloat16 and float16 are multiplied on tensor cores (tensor_cores.cuh), float32 and float64 on the ordinary ones, in
// their own precision (here). No atomics: the same bits every time. Nothing of ATen is included, so this compiles in
// seconds.
#include <atomic>

#include "core/kernels/gated_position_attention/tensor_cores.cuh"

namespace voxtorch::kernels {
namespace {

template <typename T, int Tile, int MaxDim>
struct Kernel : Tiles<T, Tile, MaxDim> {
  using Base = Tiles<T, Tile, MaxDim>;
  using Base::accumulate, Base::attends, Base::distance, Base::dropout_factors, Base::load, Base::load_attended;
  using Base::kPer, Base::kPerDim, Base::kRows, Base::kScorePitch, Base::kScores;
  using Base::multiply, Base::of_query, Base::place, Base::put, Base::tiles, Base::write;
  using typename Base::Acc;
  using typename Base::Place;
  static constexpr int kTile = Tile;
  static constexpr int kThreads = kSide * kSide;
  static constexpr int kMinBlocks = 2;

  // Shared memory of each kernel.
  static constexpr size_t kForwardBytes = (2 * kRows + kScores) * sizeof(Acc);
  static constexpr size_t kQueryBytes = (3 * kRows + kScores + Tile) * sizeof(Acc);
  static constexpr size_t kKeyBytes = (4 * kRows + kScores) * sizeof(Acc);

  // A block: one tile of queries of one head, all keys.
  __device__ static void forward(const AttentionForward& args, unsigned char* memory) {
    Acc* const shared = reinterpret_cast<Acc*>(memory);
    const AttentionInputs& in = args.inputs;
    const Place at = place(in);
    Acc* queries = shared;
    Acc* keys = queries + kRows;  // and the values, in turn
    Acc* scores = keys + kRows;
    const Acc scale = static_cast<Acc>(in.scale);

    Acc gate[kPer], top[kPer], weight[kPer];
    Acc sum[kPer][kPerDim] = {};
#pragma unroll
    for (int r = 0; r < kPer; ++r) {
      gate[r] = of_query(in.gate, in, at, at.first + at.y + kSide * r, 0);
      top[r] = -infinite<Acc>();
      weight[r] = 0;
    }
    load(queries, in.query, in, at, at.first);
    for (int64_t first = 0; first < in.time; first += Tile) {
      __syncthreads();  // the queries are there; the last tile's values are read
      load_attended(keys, in.key, in, at, first);
      __syncthreads();
      Acc p[kPer][kPer];
      multiply(p, queries, keys, at);
#pragma unroll
      for (int r = 0; r < kPer; ++r) {
        const int64_t query = at.first + at.y + kSide * r;
        Acc best = -infinite<Acc>();
#pragma unroll
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
#pragma unroll
        for (int c = 0; c < kPer; ++c) {
          p[r][c] = exponential(p[r][c] - shift);
          total += p[r][c];
          p[r][c] *= factors[c];
        }
        weight[r] = weight[r] * correction + row_sum(total);
#pragma unroll
        for (int e = 0; e < kPerDim; ++e) sum[r][e] *= correction;
        top[r] = best;
      }
      put(scores, p, at);
      __syncthreads();  // the scores are there; the keys are read
      load_attended(keys, in.value, in, at, first);
      __syncthreads();
      accumulate(sum, scores, kScorePitch, 1, keys, at);
    }

    Acc share[kPer];
#pragma unroll
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
#pragma unroll
    for (int r = 0; r < kPer; ++r) {
      const int64_t query = first + at.y + kSide * r;
      result.gate[r] = of_query(args.inputs.gate, args.inputs, at, query, 0);
      result.level[r] = of_query(args.logsumexp, args.inputs, at, query, infinite<Acc>());
      result.correction[r] = of_query(args.correction, args.inputs, at, query, 0);
    }
    return result;
  }

  // From the products of queries and keys, and of output gradients and values: the probabilities (with Dropped after
  // dropout) and the gradients of the scores, in their places.
  template <bool Dropped>
  __device__ static void differentiate(Acc (&p)[kPer][kPer], Acc (&grad)[kPer][kPer], const Queries& known,
                                       const AttentionInputs& in, const Place& at, int64_t first_query,
                                       int64_t first_key) {
#pragma unroll
    for (int r = 0; r < kPer; ++r) {
      const int64_t query = first_query + at.y + kSide * r;
      Acc factors[kPer];
      dropout_factors(factors, in, at, query, first_key);
#pragma unroll
      for (int c = 0; c < kPer; ++c) {
        const int64_t key = first_key + at.x + kSide * c;
        if (query < in.time && attends(in, at, key)) {
          const Acc score = static_cast<Acc>(in.scale) * p[r][c] + known.gate[r] * distance(in, at, query, key);
          const Acc probability = exponential(score - known.level[r]);
          p[r][c] = Dropped ? probability * factors[c] : probability;
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

  __device__ static void backward_queries(const AttentionBackward& args, unsigned char* memory) {
    Acc* const shared = reinterpret_cast<Acc*>(memory);
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
    Acc to_gate[kPer] = {}, mean[kPer] = {}, rest[kPer] = {};
    load(queries, in.query, in, at, at.first);
    load(grads, args.grad_output, in, at, at.first);
    if (at.x == 0) {
#pragma unroll
      for (int r = 0; r < kPer; ++r) gates[at.y + kSide * r] = known.gate[r];
    }
    for (int64_t first = 0; first < in.time; first += Tile) {
      __syncthreads();  // the queries are there; the last tile's keys and scores are read, its part is written
      load_attended(keys, in.value, in, at, first);
      __syncthreads();
      Acc p[kPer][kPer], grad[kPer][kPer];
      multiply(grad, grads, keys, at);
      __syncthreads();  // the values are read
      load_attended(keys, in.key, in, at, first);
      __syncthreads();
      multiply(p, queries, keys, at);
      differentiate<false>(p, grad, known, in, at, at.first, first);
#pragma unroll
      for (int r = 0; r < kPer; ++r) {
#pragma unroll
        for (int c = 0; c < kPer; ++c) {
          const Acc relative = distance(in, at, at.first + at.y + kSide * r, first + at.x + kSide * c);
          to_gate[r] += grad[r][c] * relative;
          mean[r] += p[r][c] * relative;
          rest[r] += grad[r][c];
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
          if (k >= 0 && k < Tile && first + k >= in.free_keys) total += gates[q] * scores[q * kScorePitch + k];
        }
        part[first + n] += total;
      }
    }

    Acc factor[kPer];
#pragma unroll
    for (int r = 0; r < kPer; ++r) {
      factor[r] = static_cast<Acc>(in.scale);
      // The scores' gradients of a query sum to zero but for the rounding of the output, from which the correction is
      // made. The gate sums them over all keys, so that it would show there.
      const Acc total = row_sum(to_gate[r]) - row_sum(rest[r]) * row_sum(mean[r]);
      const int64_t query = at.first + at.y + kSide * r;
      if (at.x == 0 && query < in.time) static_cast<Acc*>(args.grad_gate)[at.row * in.time + query] = total;
    }
    write(args.grad_query, sum, factor, in, at);
  }

  // A block: one tile of keys of one head, all queries; the gradients of the keys and the values.
  __device__ static void backward_keys(const AttentionBackward& args, unsigned char* memory) {
    Acc* const shared = reinterpret_cast<Acc*>(memory);
    const AttentionInputs& in = args.inputs;
    const Place at = place(in);
    Acc* keys = shared;
    Acc* values = keys + kRows;
    Acc* queries = values + kRows;
    Acc* grads = queries + kRows;
    Acc* scores = grads + kRows;

    Acc key_sum[kPer][kPerDim] = {};
    Acc value_sum[kPer][kPerDim] = {};
    load_attended(keys, in.key, in, at, at.first);
    load_attended(values, in.value, in, at, at.first);
    for (int64_t first = 0; first < in.time; first += Tile) {
      __syncthreads();  // the last tile's queries, gradients and scores are read
      load(queries, in.query, in, at, first);
      load(grads, args.grad_output, in, at, first);
      __syncthreads();  // and the keys and values are there
      const Queries known = queries_from(args, at, first);
      Acc p[kPer][kPer], grad[kPer][kPer];
      multiply(p, queries, keys, at);
      multiply(grad, grads, values, at);
      differentiate<true>(p, grad, known, in, at, first, at.first);
      put(scores, p, at);
      __syncthreads();
      accumulate(value_sum, scores, 1, kScorePitch, grads, at);
      __syncthreads();  // the probabilities are read
      put(scores, grad, at);
      __syncthreads();
      accumulate(key_sum, scores, 1, kScorePitch, queries, at);
    }

    Acc one[kPer], scale[kPer];
#pragma unroll
    for (int r = 0; r < kPer; ++r) {
      one[r] = 1;
      scale[r] = static_cast<Acc>(in.scale);
    }
    write(args.grad_value, value_sum, one, in, at);
    write(args.grad_key, key_sum, scale, in, at);
  }
};

extern __shared__ __align__(16) unsigned char shared_memory[];

template <typename K>
__global__ void __launch_bounds__(K::kThreads, K::kMinBlocks) forward_kernel(AttentionForward args) {
  K::forward(args, shared_memory);
}
template <typename K>
__global__ void __launch_bounds__(K::kThreads, K::kMinBlocks) backward_queries_kernel(AttentionBackward args) {
  K::backward_queries(args, shared_memory);
}
template <typename K>
__global__ void __launch_bounds__(K::kThreads, K::kMinBlocks) backward_keys_kernel(AttentionBackward args) {
  K::backward_keys(args, shared_memory);
}

constexpr int kSumThreads = 256;

// A thread: one distance of one head, summed over the batch and the tiles of queries in their order.
template <typename Acc, int Tile>
__global__ void __launch_bounds__(kSumThreads) sum_partials_kernel(AttentionBackward args) {
  const AttentionInputs& in = args.inputs;
  const int64_t tiles = (in.time + Tile - 1) / Tile;
  const int64_t span = (tiles + 1) * Tile;
  const int64_t distances = 2 * in.time - 1;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kSumThreads + threadIdx.x;
  if (index >= in.heads * distances) return;
  const int64_t head = index / distances;
  const int64_t difference = index % distances - (in.time - 1);  // key - query
  const Acc* parts = static_cast<const Acc*>(args.partials);
  Acc total = 0;
  for (int64_t batch = 0; batch < in.batch; ++batch) {
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t n = difference + tile * Tile + (Tile - 1);
      if (n >= 0 && n < span) total += parts[((batch * in.heads + head) * tiles + tile) * span + n];
    }
  }
  static_cast<Acc*>(args.grad_relative)[index] = total;
}

// More than 48 KiB of shared memory has to be asked for, once for each kernel and device.
class SharedMemory {
 public:
  template <typename Args>
  cudaError_t ask(void (*kernel)(Args), size_t bytes) {
    if (bytes <= 48 << 10) return cudaSuccess;
    int device = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error != cudaSuccess) return error;
    const uint64_t bit = device < 64 ? uint64_t{1} << device : 0;  // those beyond ask every time
    if ((asked_.load() & bit) != 0) return cudaSuccess;
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (error == cudaSuccess) asked_.fetch_or(bit);
    return error;
  }

 private:
  std::atomic<uint64_t> asked_{0};
};

template <typename Args>
cudaError_t launch(void (*kernel)(Args), SharedMemory& shared, int64_t blocks, int threads, size_t bytes,
                   cudaStream_t stream, const Args& args) {
  const cudaError_t error = shared.ask(kernel, bytes);
  if (error != cudaSuccess) return error;
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), bytes, stream>>>(args);
  return cudaGetLastError();
}

int64_t tile_count(int64_t time, int64_t tile) { return (time + tile - 1) / tile; }

// The largest tiles whose backward fits into the 99 KiB of shared memory of sm_86 and sm_89: 64 x 64 in half precision
// and up to dim 64, 32 x 32 beyond; half of that for float64.
int64_t tile_of(AttentionType type, int64_t dim) {
  if (type == AttentionType::kBFloat16 || type == AttentionType::kFloat16) return 64;
  return (dim > 64 ? 32 : 64) / (type == AttentionType::kFloat64 ? 2 : 1);
}

// Calls run(Kernel<...>()) with the one for the type and dim.
template <typename Run>
cudaError_t with_kernel(AttentionType type, int64_t dim, Run run) {
  const bool small = dim <= 64;
  switch (type) {
    case AttentionType::kFloat32:
      return small ? run(Kernel<float, 64, 64>()) : run(Kernel<float, 32, 128>());
    case AttentionType::kBFloat16:
      return small ? run(TensorKernel<__nv_bfloat16, 64>()) : run(TensorKernel<__nv_bfloat16, 128>());
    case AttentionType::kFloat16:
      return small ? run(TensorKernel<__half, 64>()) : run(TensorKernel<__half, 128>());
    case AttentionType::kFloat64:
      return small ? run(Kernel<double, 32, 64>()) : run(Kernel<double, 16, 128>());
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
    static SharedMemory shared;
    return launch(forward_kernel<K>, shared, attention_blocks(type, args.inputs), K::kThreads, K::kForwardBytes,
                  static_cast<cudaStream_t>(stream), args);
  });
}

int launch_attention_backward(AttentionType type, const AttentionBackward& args, void* stream) {
  return with_kernel(type, args.inputs.dim, [&](auto kernel) {
    using K = decltype(kernel);
    const cudaStream_t on = static_cast<cudaStream_t>(stream);
    const int64_t blocks = attention_blocks(type, args.inputs);
    const int64_t distances = args.inputs.heads * (2 * args.inputs.time - 1);
    static SharedMemory of_queries, of_keys, of_sums;
    cudaError_t error = launch(backward_queries_kernel<K>, of_queries, blocks, K::kThreads, K::kQueryBytes, on, args);
    if (error == cudaSuccess)
      error = launch(backward_keys_kernel<K>, of_keys, blocks, K::kThreads, K::kKeyBytes, on, args);
    if (error == cudaSuccess) {
      error = launch(sum_partials_kernel<typename K::Acc, K::kTile>, of_sums, tile_count(distances, kSumThreads),
                     kSumThreads, 0, on, args);
    }
    return error;
  });
}

}  // namespace voxtorch::kernels

// gated_position_attention of bfloat16 and float16 on tensor cores: what a block does with one tile of 64 queries and
// 64 keys. Internal to the file that includes it.
//
// A block is four warps, each of which has 16 rows of the tile: queries, or in the gradients of keys and values keys.
// Products are summed in float32, and what is made of them (softmax, dropout, the scores' gradients, those of gates and
// distances) is float32 too; only what goes into a further product is rounded to the dtype. The tile's columns are
// multiplied 32 at a time in the backward, for which there are registers (mma.cuh says who holds what).
#pragma once

#include "core/kernels/gated_position_attention/tiles.cuh"
#include "core/kernels/mma.cuh"

namespace voxtorch::kernels {
namespace {

template <typename T, int MaxDim>
struct TensorKernel {
  using Acc = float;
  static constexpr int kTile = 64;
  static constexpr int kThreads = 128;
  static constexpr int kMinBlocks = MaxDim > 64 ? 1 : 2;
  static constexpr int kPitch = MaxDim + 8;  // 16 bytes more than a power of two: the rows of a matrix lie in all banks
  static constexpr int kRows = kTile * kPitch;   // numbers in a shared tile
  static constexpr int kScorePitch = kTile + 8;  // even, for pairs
  static constexpr int kSteps = MaxDim / 16;
  static constexpr int kBoth = MaxDim / 8;  // groups of 8 columns in a row of dim

  // What belongs to a tile of scores besides its products.
  struct Beside {
    float relative[2 * kTile];    // of key - query + kTile - 1, counted in the tile
    float known[3][kTile];        // of the queries: gate, logsumexp, correction; in the gradients of keys and values
    uint8_t attends[kTile];       // the keys; 2: without a bias
    uint8_t keeps[kTile][kSide];  // dropout: bit w of [query][k] says whether key k + 16 w is kept
  };

  // Shared memory of each kernel.
  static constexpr size_t kTileBytes = kRows * sizeof(T);
  static constexpr size_t kForwardBytes = 3 * kTileBytes + sizeof(Beside);
  static constexpr size_t kQueryBytes = 4 * kTileBytes + sizeof(Beside) + kTile * kScorePitch * sizeof(float);
  static constexpr size_t kKeyBytes = 4 * kTileBytes + sizeof(Beside);

  struct Place {
    int64_t batch, head, row;  // row: in batch * heads
    int64_t first;             // of the block's tile, a query or a key
    int warp, lane, group, pair;
  };

  __device__ static int64_t tiles(const AttentionInputs& in) { return (in.time + kTile - 1) / kTile; }

  __device__ static Place place(const AttentionInputs& in) {
    const int64_t row = blockIdx.x / tiles(in);
    const int lane = threadIdx.x % 32;
    return {row / in.heads,
            row % in.heads,
            row,
            static_cast<int64_t>(blockIdx.x) % tiles(in) * kTile,
            static_cast<int>(threadIdx.x) / 32,
            lane,
            lane / 4,
            lane % 4 * 2};
  }

  __device__ static bool attends(const AttentionInputs& in, const Place& at, int64_t key) {
    return key < in.time && (in.key_mask == nullptr || in.key_mask[at.batch * in.time + key]);
  }

  struct alignas(16) Eight {
    uint32_t words[4];
  };

  // Rows [first, first + kTile) of one head into shared memory, zero beyond time and dim; with Attended also those that
  // no query attends to, which may hold anything, and zero times NaN is NaN. Sixteen bytes at once where they lie so.
  template <bool Attended>
  __device__ static void load(T* shared, const Strided<const void>& from, const AttentionInputs& in, const Place& at,
                              int64_t first) {
    const T* data = static_cast<const T*>(from.data) + at.batch * from.batch + at.head * from.head;
    const int width = static_cast<int>((in.dim + 15) / 16 * 16);
    const auto inside = [&](int64_t row) { return Attended ? attends(in, at, row) : row < in.time; };
    if (from.dim == 1 && in.dim % 8 == 0 && from.time % 8 == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0) {
      for (int i = threadIdx.x; i < kTile * (width / 8); i += kThreads) {
        const int row = i / (width / 8), d = i % (width / 8) * 8;
        Eight eight = {};
        if (d < in.dim && inside(first + row))
          eight = *reinterpret_cast<const Eight*>(data + (first + row) * from.time + d);
        *reinterpret_cast<Eight*>(shared + row * kPitch + d) = eight;
      }
      return;
    }
    for (int i = threadIdx.x; i < kTile * width; i += kThreads) {
      const int row = i / width, d = i % width;
      shared[row * kPitch + d] =
          d < in.dim && inside(first + row) ? data[(first + row) * from.time + d * from.dim] : narrow<T, float>(0.0f);
    }
  }

  __device__ static void load_beside(Beside& beside, const AttentionInputs& in, const Place& at, int64_t first_query,
                                     int64_t first_key) {
    const float* relative = static_cast<const float*>(in.relative) + at.head * (2 * in.time - 1);
    for (int i = threadIdx.x; i < 2 * kTile; i += kThreads) {
      const int64_t n = first_key - first_query + i - (kTile - 1) + in.time - 1;
      beside.relative[i] = n >= 0 && n < 2 * in.time - 1 ? relative[n] : 0.0f;
    }
    for (int i = threadIdx.x; i < kTile; i += kThreads) {
      const int64_t key = first_key + i;
      beside.attends[i] = !attends(in, at, key) ? 0 : key < in.free_keys ? 2 : 1;
    }
    if (in.dropout.threshold == 0) return;
    for (int i = threadIdx.x; i < kTile * kSide; i += kThreads) {
      const PhiloxWords words =
          dropout_words(in.dropout, static_cast<uint32_t>(at.row), static_cast<uint32_t>(first_query + i / kSide),
                        dropout_counter(first_key + i % kSide));
      unsigned bits = 0;
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const unsigned kept = words.word[w] >= in.dropout.threshold;
        bits |= kept << w;
      }
      beside.keeps[i / kSide][i % kSide] = static_cast<uint8_t>(bits);
    }
  }

  // Of a key and a query of the tile; zero for a key that has no bias.
  __device__ static float relative_of(const Beside& beside, int query, int key) {
    return beside.attends[key] == 2 ? 0.0f : beside.relative[key - query + kTile - 1];
  }

  __device__ static float factor(const Beside& beside, const AttentionInputs& in, int query, int key) {
    if (in.dropout.threshold == 0) return 1;
    return (beside.keeps[query][key % kSide] >> (key / kSide) & 1) != 0 ? static_cast<float>(in.dropout.scale) : 0.0f;
  }

  // product = this warp's 16 rows of a times the rows [first, first + 8 * Columns) of b.
  template <int Columns>
  __device__ static void multiply(float (&product)[Columns][4], const T* a, const T* b, int first,
                                  const AttentionInputs& in, const Place& at) {
#pragma unroll
    for (int n = 0; n < Columns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) product[n][i] = 0;
    }
    const T* const left_row = a + (16 * at.warp + at.lane % 16) * kPitch + at.lane / 16 * 8;
    const T* const right_row = b + (first + at.lane / 16 * 8 + at.lane % 8) * kPitch + at.lane / 8 % 2 * 8;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (16 * step >= in.dim) break;
      uint32_t left[4];
      load_matrices(left, left_row + 16 * step);
#pragma unroll
      for (int n = 0; n < Columns; n += 2) {
        uint32_t right[4];
        load_matrices(right, right_row + 8 * n * kPitch + 16 * step);
        multiply_add<T>(product[n], left, right[0], right[1]);
        multiply_add<T>(product[n + 1], left, right[2], right[3]);
      }
    }
  }

  // sum += weights, narrowed, times the rows [first, first + 8 * Columns) of b.
  template <int Columns>
  __device__ static void accumulate(float (&sum)[kBoth][4], const float (&weights)[Columns][4], const T* b, int first,
                                    const AttentionInputs& in, const Place& at) {
    const T* const right_row = b + (first + at.lane % 16) * kPitch + at.lane / 16 * 8;
#pragma unroll
    for (int step = 0; step < Columns / 2; ++step) {
      const float(&low)[4] = weights[2 * step];
      const float(&high)[4] = weights[2 * step + 1];
      const uint32_t left[4] = {narrow_pair<T>(low[0], low[1]), narrow_pair<T>(low[2], low[3]),
                                narrow_pair<T>(high[0], high[1]), narrow_pair<T>(high[2], high[3])};
#pragma unroll
      for (int d = 0; d < kSteps; ++d) {
        if (16 * d >= in.dim) break;
        uint32_t right[4];
        load_matrices_transposed(right, right_row + 16 * step * kPitch + 16 * d);
        multiply_add<T>(sum[2 * d], left, right[0], right[1]);
        multiply_add<T>(sum[2 * d + 1], left, right[2], right[3]);
      }
    }
  }

  // The four lanes of a row.
  __device__ static float row_max(float value) {
#pragma unroll
    for (int lane = 2; lane > 0; lane /= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, value, lane);
      value = other > value ? other : value;
    }
    return value;
  }
  __device__ static float row_sum(float value) {
#pragma unroll
    for (int lane = 2; lane > 0; lane /= 2) value += __shfl_xor_sync(0xffffffffu, value, lane);
    return value;
  }

  // sum times factor[half] as the rows of this warp.
  __device__ static void write(const Strided<void>& to, const float (&sum)[kBoth][4], const float (&factor)[2],
                               const AttentionInputs& in, const Place& at) {
    T* data = static_cast<T*>(to.data) + at.batch * to.batch + at.head * to.head;
#pragma unroll
    for (int n = 0; n < kBoth; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t row = at.first + row_of(at, i / 2);
        const int d = 8 * n + at.pair + i % 2;
        if (row < in.time && d < in.dim) data[row * to.time + d * to.dim] = narrow<T, float>(sum[n][i] * factor[i / 2]);
      }
    }
  }

  // In the tile, of this lane's two rows.
  __device__ static int row_of(const Place& at, int half) { return 16 * at.warp + at.group + 8 * half; }

  __device__ static float of_query(const void* numbers, const AttentionInputs& in, const Place& at, int64_t query,
                                   float outside) {
    return query < in.time ? static_cast<const float*>(numbers)[at.row * in.time + query] : outside;
  }

  // A block: one tile of queries of one head, all keys.
  __device__ static void forward(const AttentionForward& args, unsigned char* shared) {
    const AttentionInputs& in = args.inputs;
    const Place at = place(in);
    T* const queries = reinterpret_cast<T*>(shared);
    T* const keys = queries + kRows;
    T* const values = keys + kRows;
    Beside& beside = *reinterpret_cast<Beside*>(values + kRows);
    const float scale = static_cast<float>(in.scale);

    float sum[kBoth][4] = {};
    float gate[2], top[2], weight[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      gate[half] = of_query(in.gate, in, at, at.first + row_of(at, half), 0);
      top[half] = -infinite<float>();
      weight[half] = 0;
    }
    load<false>(queries, in.query, in, at, at.first);
    for (int64_t first = 0; first < in.time; first += kTile) {
      __syncthreads();  // the last tile is read
      load<true>(keys, in.key, in, at, first);
      load<true>(values, in.value, in, at, first);
      load_beside(beside, in, at, at.first, first);
      __syncthreads();  // the queries, too, are there
      float p[8][4];
      multiply<8>(p, queries, keys, 0, in, at);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int query = row_of(at, half);
        float best = -infinite<float>();
#pragma unroll
        for (int n = 0; n < 8; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int key = 8 * n + at.pair + e;
            float& score = p[n][2 * half + e];
            score =
                beside.attends[key] ? scale * score + gate[half] * relative_of(beside, query, key) : -infinite<float>();
            best = score > best ? score : best;
          }
        }
        best = row_max(best);
        best = top[half] > best ? top[half] : best;
        const float shift = best == -infinite<float>() ? 0.0f : best;
        const float correction = exponential(top[half] - shift);  // zero in the first tile, whose sums are zero too
        float total = 0;
#pragma unroll
        for (int n = 0; n < 8; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            float& probability = p[n][2 * half + e];
            probability = exponential(probability - shift);
            total += probability;
            probability *= factor(beside, in, query, 8 * n + at.pair + e);
          }
        }
        weight[half] = weight[half] * correction + row_sum(total);
#pragma unroll
        for (int n = 0; n < kBoth; ++n) {
          sum[n][2 * half] *= correction;
          sum[n][2 * half + 1] *= correction;
        }
        top[half] = best;
      }
      accumulate<8>(sum, p, values, 0, in, at);
    }

    float share[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      share[half] = weight[half] == 0 ? 0.0f : 1 / weight[half];
      const int64_t query = at.first + row_of(at, half);
      if (at.pair == 0 && query < in.time) {
        static_cast<float*>(args.logsumexp)[at.row * in.time + query] =
            weight[half] == 0 ? infinite<float>() : top[half] + logarithm(weight[half]);
      }
    }
    write(args.output, sum, share, in, at);
  }

  // From a product of query and key, and one of output gradient and value: the probability and the score's gradient.
  __device__ static void differentiate(float& p, float& grad, bool inside, float factor, float bias, float level,
                                       float correction, float scale) {
    const float probability = exponential(scale * p + bias - level);
    p = inside ? probability : 0.0f;
    grad = inside ? probability * (grad * factor - correction) : 0.0f;
  }

  __device__ static int64_t span(const AttentionInputs& in) { return (tiles(in) + 1) * kTile; }

  // A block: one tile of queries of one head, all keys; the gradients of the queries, the gates and, summed along the
  // diagonals of each tile, of the distances (Kernel::backward_queries says where they go).
  __device__ static void backward_queries(const AttentionBackward& args, unsigned char* shared) {
    const AttentionInputs& in = args.inputs;
    const Place at = place(in);
    T* const queries = reinterpret_cast<T*>(shared);
    T* const grads = queries + kRows;
    T* const keys = grads + kRows;
    T* const values = keys + kRows;
    Beside& beside = *reinterpret_cast<Beside*>(values + kRows);
    float* const scores = reinterpret_cast<float*>(&beside + 1);
    float* const part = static_cast<float*>(args.partials) + blockIdx.x * span(in);
    const float scale = static_cast<float>(in.scale);

    float sum[kBoth][4] = {};
    float gate[2], level[2], correction[2], to_gate[2] = {}, mean[2] = {}, rest[2] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t query = at.first + row_of(at, half);
      gate[half] = of_query(in.gate, in, at, query, 0);
      level[half] = of_query(args.logsumexp, in, at, query, infinite<float>());
      correction[half] = of_query(args.correction, in, at, query, 0);
    }
    load<false>(queries, in.query, in, at, at.first);
    load<false>(grads, args.grad_output, in, at, at.first);
    for (int64_t first = 0; first < in.time; first += kTile) {
      // All have left the last tile since the barrier before its diagonals.
      load<true>(keys, in.key, in, at, first);
      load<true>(values, in.value, in, at, first);
      load_beside(beside, in, at, at.first, first);
      __syncthreads();
#pragma unroll 1
      for (int columns = 0; columns < kTile; columns += 32) {
        float p[4][4], grad[4][4];
        multiply<4>(p, queries, keys, columns, in, at);
        multiply<4>(grad, grads, values, columns, in, at);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int query = row_of(at, half);
          const bool inside = at.first + query < in.time;
#pragma unroll
          for (int n = 0; n < 4; ++n) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
              const int key = columns + 8 * n + at.pair + e;
              const float relative = relative_of(beside, query, key);
              float& one = grad[n][2 * half + e];
              differentiate(p[n][2 * half + e], one, inside && beside.attends[key], factor(beside, in, query, key),
                            gate[half] * relative, level[half], correction[half], scale);
              to_gate[half] += one * relative;
              mean[half] += p[n][2 * half + e] * relative;
              rest[half] += one;
              scores[query * kScorePitch + key] = beside.attends[key] == 2 ? 0.0f : gate[half] * one;
            }
          }
        }
        accumulate<4>(sum, grad, keys, columns, in, at);
      }
      __syncthreads();            // the scores are there
      const int n = threadIdx.x;  // one diagonal a thread
      if (n < 2 * kTile - 1) {
        float total = 0;
        for (int q = 0; q < kTile; ++q) {
          const int k = n - (kTile - 1) + q;
          if (k >= 0 && k < kTile) total += scores[q * kScorePitch + k];
        }
        part[first + n] += total;
      }
    }

    float factors[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      factors[half] = scale;
      // As Kernel::backward_queries corrects it.
      const float total = row_sum(to_gate[half]) - row_sum(rest[half]) * row_sum(mean[half]);
      const int64_t query = at.first + row_of(at, half);
      if (at.pair == 0 && query < in.time) static_cast<float*>(args.grad_gate)[at.row * in.time + query] = total;
    }
    write(args.grad_query, sum, factors, in, at);
  }

  // A block: one tile of keys of one head, all queries; the gradients of the keys and the values.
  __device__ static void backward_keys(const AttentionBackward& args, unsigned char* shared) {
    const AttentionInputs& in = args.inputs;
    const Place at = place(in);
    T* const keys = reinterpret_cast<T*>(shared);
    T* const values = keys + kRows;
    T* const queries = values + kRows;
    T* const grads = queries + kRows;
    Beside& beside = *reinterpret_cast<Beside*>(grads + kRows);
    const float scale = static_cast<float>(in.scale);

    float key_sum[kBoth][4] = {}, value_sum[kBoth][4] = {};
    load<true>(keys, in.key, in, at, at.first);
    load<true>(values, in.value, in, at, at.first);
    for (int64_t first = 0; first < in.time; first += kTile) {
      __syncthreads();  // the last tile is read
      load<false>(queries, in.query, in, at, first);
      load<false>(grads, args.grad_output, in, at, first);
      load_beside(beside, in, at, first, at.first);
      for (int i = threadIdx.x; i < kTile; i += kThreads) {
        beside.known[0][i] = of_query(in.gate, in, at, first + i, 0);
        beside.known[1][i] = of_query(args.logsumexp, in, at, first + i, infinite<float>());
        beside.known[2][i] = of_query(args.correction, in, at, first + i, 0);
      }
      __syncthreads();  // the keys and values, too, are there
#pragma unroll 1
      for (int columns = 0; columns < kTile; columns += 32) {
        float p[4][4], grad[4][4];
        multiply<4>(p, keys, queries, columns, in, at);
        multiply<4>(grad, values, grads, columns, in, at);
#pragma unroll
        for (int n = 0; n < 4; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int key = row_of(at, i / 2), query = columns + 8 * n + at.pair + i % 2;
            const float kept = factor(beside, in, query, key);
            const float bias = beside.known[0][query] * relative_of(beside, query, key);
            differentiate(p[n][i], grad[n][i], first + query < in.time && beside.attends[key], kept, bias,
                          beside.known[1][query], beside.known[2][query], scale);
            p[n][i] *= kept;
          }
        }
        accumulate<4>(value_sum, p, grads, columns, in, at);
        accumulate<4>(key_sum, grad, queries, columns, in, at);
      }
    }

    const float one[2] = {1, 1}, scales[2] = {scale, scale};
    write(args.grad_value, value_sum, one, in, at);
    write(args.grad_key, key_sum, scales, in, at);
  }
};

}  // namespace
}  // namespace voxtorch::kernels

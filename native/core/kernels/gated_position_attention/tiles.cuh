// What a block of gated_position_attention's CUDA kernels does with one tile: loading it, multiplying two, and who
// holds what of it. Internal to the file that includes it.
//
// A tile of as many queries as keys lies over 16 x 16 threads: thread (y, x) holds the queries y + 16 r and the keys
// x + 16 c. So the threads of one query are 16 neighboring lanes, which reduce by shuffles, and the keys of one thread
// are those that one call of Philox serves (gated_position_attention_dropout.h).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "core/kernels/accumulate.cuh"
#include "core/kernels/gated_position_attention/args.h"
#include "core/kernels/gated_position_attention/dropout.h"

namespace voxtorch::kernels {
namespace {

constexpr int kSide = 16;
constexpr int kThreads = kSide * kSide;

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
struct Tiles {
  using Acc = typename Accumulator<T>::type;
  static constexpr int kPer = Tile / kSide;       // queries, and keys, of a thread
  static constexpr int kPerDim = MaxDim / kSide;  // dimensions of a thread, x + 16 e
  static constexpr int kPitch = MaxDim + 1;       // odd, so that the lanes of a column lie in different banks
  static constexpr int kRows = Tile * kPitch;     // numbers in a shared tile of queries, keys or values
  static constexpr int kScorePitch = Tile + 1;
  static constexpr int kScores = Tile * kScorePitch;  // and in one of scores

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
    load_where(shared, from, in, at, first, [&](int64_t row) { return row < in.time; });
  }
  // The same of keys or values. Those that no query attends to are zero too: they may hold anything, and zero times NaN
  // is NaN.
  __device__ static void load_attended(Acc* shared, const Strided<const void>& from, const AttentionInputs& in,
                                       const Place& at, int64_t first) {
    load_where(shared, from, in, at, first, [&](int64_t row) { return attends(in, at, row); });
  }
  template <typename Inside>
  __device__ static void load_where(Acc* shared, const Strided<const void>& from, const AttentionInputs& in,
                                    const Place& at, int64_t first, Inside inside) {
    const T* data = static_cast<const T*>(from.data) + at.batch * from.batch + at.head * from.head;
    for (int i = threadIdx.x; i < Tile * MaxDim; i += kThreads) {
      const int row = i / MaxDim;
      const int d = i % MaxDim;
      shared[row * kPitch + d] = d < in.dim && inside(first + row)
                                     ? static_cast<Acc>(data[(first + row) * from.time + d * from.dim])
                                     : static_cast<Acc>(0);
    }
  }

  // The products of this thread's rows of a and of b.
  __device__ static void multiply(Acc (&product)[kPer][kPer], const Acc* a, const Acc* b, const Place& at) {
#pragma unroll
    for (int r = 0; r < kPer; ++r) {
#pragma unroll
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
#pragma unroll
    for (int r = 0; r < kPer; ++r) {
#pragma unroll
      for (int c = 0; c < kPer; ++c) scores[(at.y + kSide * r) * kScorePitch + at.x + kSide * c] = values[r][c];
    }
  }

  // sum[r] times factor[r] as the rows first + y + 16 r of one head.
  __device__ static void write(const Strided<void>& to, const Acc (&sum)[kPer][kPerDim], const Acc (&factor)[kPer],
                               const AttentionInputs& in, const Place& at) {
    T* data = static_cast<T*>(to.data) + at.batch * to.batch + at.head * to.head;
#pragma unroll
    for (int r = 0; r < kPer; ++r) {
      const int64_t row = at.first + at.y + kSide * r;
      if (row >= in.time) continue;
#pragma unroll
      for (int e = 0; e < kPerDim; ++e) {
        const int d = at.x + kSide * e;
        if (d < in.dim) data[row * to.time + d * to.dim] = narrow<T, Acc>(sum[r][e] * factor[r]);
      }
    }
  }

  __device__ static bool attends(const AttentionInputs& in, const Place& at, int64_t key) {
    return key < in.time && (in.key_mask == nullptr || in.key_mask[at.batch * in.time + key]);
  }

  // relative[key - query + time - 1]; zero outside of the sequence, and for a key that has no bias.
  __device__ static Acc distance(const AttentionInputs& in, const Place& at, int64_t query, int64_t key) {
    if (query >= in.time || key >= in.time || key < in.free_keys) return 0;
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
#pragma unroll
    for (int c = 0; c < kPer; ++c) factors[c] = 1;
    if (in.dropout.threshold == 0) return;
    const PhiloxWords words = dropout_words(in.dropout, static_cast<uint32_t>(at.row), static_cast<uint32_t>(query),
                                            dropout_counter(first_key + at.x));
#pragma unroll
    for (int c = 0; c < kPer; ++c) {
      const bool kept = chosen_word(words, dropout_word(first_key + at.x + kSide * c)) >= in.dropout.threshold;
      factors[c] = kept ? static_cast<Acc>(in.dropout.scale) : static_cast<Acc>(0);
    }
  }
};

}  // namespace
}  // namespace voxtorch::kernels

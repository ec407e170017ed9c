// few_rows_joined on CUDA: a warp, or several of a block, computes a group of four outputs for up to eight rows.
// Weights are read once, 16 bytes a lane and four rows of them at once; inputs, which all warps read, come from the
// cache. Sums are float32. Bound by the bytes of the weights. Nothing of ATen is included, so this compiles in seconds.
#include <cstring>

#include "core/kernels/few_rows/joined.cuh"

namespace voxtorch::kernels {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 4;
constexpr int kChunk = 8;  // elements that are multiplied at once

template <typename T, int Width>
struct alignas(sizeof(T) * Width < 16 ? sizeof(T) * Width : 16) Pack {
  T lane[Width];
};

// Elements in the 16 bytes that a lane reads of a row of weights.
template <typename T, JoinedWeight Kind>
__host__ __device__ constexpr int vector_width() {
  return Kind == JoinedWeight::kNf4 ? 32 : Kind == JoinedWeight::kInt8 ? 16 : 16 / static_cast<int>(sizeof(T));
}

template <typename T, JoinedWeight Kind>
__device__ float code_in(const uint4& raw, int i, const float* table) {
  const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
  if constexpr (Kind == JoinedWeight::kNf4) {
    return nf4_in(words[i / 8], i % 8, table);
  } else if constexpr (Kind == JoinedWeight::kInt8) {
    return int8_in(words[i / 4], i % 4);
  } else {
    T values[16 / sizeof(T)];
    std::memcpy(values, words, sizeof words);
    return static_cast<float>(values[i]);
  }
}

// A lane's part of the sums of a group, for the rows of the input from `first` on: those that there are not are the
// last one again.
template <typename T, JoinedWeight Kind, int Rows, bool Vectors>
__device__ void add_products(const Joined& args, const Slot (&slots)[kGroup], const float* table, int64_t begin,
                             int64_t step, int64_t first, float (&sums)[kGroup][Rows]) {
  const T* const input = static_cast<const T*>(args.input) + first * args.in;
  // In 32 bits, which spares registers: the host takes no longer rows.
  const int last = static_cast<int>(args.rows - 1 - first < Rows ? args.rows - 1 - first : Rows - 1);
  const unsigned in = static_cast<unsigned>(args.in);
  const auto row = [&](int r) { return input + (r < last ? r : last) * in; };
  if constexpr (Vectors) {
    constexpr int kWidth = vector_width<T, Kind>();
    constexpr int kPart = kWidth < kChunk ? kWidth : kChunk;
    const uint4* weights[kGroup];
    const float* scales[kGroup];
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const JoinedProjection& projection = args.projections[slots[i].projection];
      weights[i] = static_cast<const uint4*>(projection.weight) + slots[i].row * (args.in / kWidth);
      scales[i] = projection.scale;
    }
    for (int64_t vector = begin; vector < args.in / kWidth; vector += step) {
      uint4 raw[kGroup];
      float scale[kGroup];
#pragma unroll
      for (int i = 0; i < kGroup; ++i) raw[i] = __ldcs(weights[i] + vector);
      if constexpr (Kind == JoinedWeight::kNf4) {
#pragma unroll
        for (int i = 0; i < kGroup; ++i) {
          const int shift = args.projections[slots[i].projection].shift;
          scale[i] = scales[i][(slots[i].row * args.in + vector * kWidth) >> shift];
        }
      }
#pragma unroll
      for (int part = 0; part < kWidth; part += kPart) {
        float codes[kGroup][kPart];
#pragma unroll
        for (int i = 0; i < kGroup; ++i) {
#pragma unroll
          for (int j = 0; j < kPart; ++j) codes[i][j] = code_in<T, Kind>(raw[i], part + j, table);
        }
#pragma unroll
        for (int r = 0; r < Rows; ++r) {
          const auto x = *reinterpret_cast<const Pack<T, kPart>*>(row(r) + vector * kWidth + part);
#pragma unroll
          for (int i = 0; i < kGroup; ++i) {
            float sum = Kind == JoinedWeight::kNf4 ? 0.0f : sums[i][r];
#pragma unroll
            for (int j = 0; j < kPart; ++j) sum += codes[i][j] * static_cast<float>(x.lane[j]);
            sums[i][r] = Kind == JoinedWeight::kNf4 ? sums[i][r] + scale[i] * sum : sum;
          }
        }
      }
    }
  } else {
    for (int64_t k = begin; k < args.in; k += step) {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        const JoinedProjection& projection = args.projections[slots[i].projection];
        const int64_t at = slots[i].row * args.in + k;
        float value = code_at<T, Kind>(projection.weight, at, table);
        if (Kind == JoinedWeight::kNf4) value *= projection.scale[at / projection.block];
#pragma unroll
        for (int r = 0; r < Rows; ++r) sums[i][r] += value * static_cast<float>(row(r)[k]);
      }
    }
  }
}

// Blocks of a multiprocessor that registers are spared for: as many as spill none.
template <typename T, JoinedWeight Kind>
constexpr int blocks_at_once(int rows) {
  const int fewer = sizeof(T) == 4 && Kind == JoinedWeight::kNf4 && rows < 8;
  return (rows == 1 ? 6 : rows == 2 ? 4 : rows == 4 ? 3 : 2) - fewer;
}

// `splits` warps share a group, and a block has kWarps / splits groups.
template <typename T, JoinedWeight Kind, int Rows, bool Vectors>
__global__ void __launch_bounds__(kWarps* kWarp, blocks_at_once<T, Kind>(Rows))
    joined_kernel(Joined args, int64_t groups, int splits) {
  __shared__ float table[16];
  __shared__ float shared[kWarps][kGroup * Rows];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t first_group = static_cast<int64_t>(blockIdx.x) * (kWarps / splits);
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * Rows;
  if (Kind == JoinedWeight::kNf4) {
    if (threadIdx.x < 16) table[threadIdx.x] = args.values[threadIdx.x];
    __syncthreads();
  }
  const int64_t group = first_group + warp / splits;
  if (group < groups) {
    Slot slots[kGroup];
#pragma unroll
    for (int i = 0; i < kGroup; ++i) slots[i] = slot_of(args, group, i);
    const int64_t begin = warp % splits * kWarp + lane, step = splits * kWarp;
    float sums[kGroup][Rows] = {};
    add_products<T, Kind, Rows, Vectors>(args, slots, table, begin, step, first_row, sums);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const JoinedProjection& projection = args.projections[slots[i].projection];
      const float factor = row_factor<Kind>(projection, slots[i].row);
#pragma unroll
      for (int r = 0; r < Rows; ++r) sums[i][r] *= factor;
      const T* const b = static_cast<const T*>(projection.lora_b);
      for (int64_t k = begin; b && k < projection.rank; k += step) {
        const float value = static_cast<float>(b[slots[i].row * projection.rank + k]);
#pragma unroll
        for (int r = 0; r < Rows; ++r) {
          if (first_row + r < args.rows)
            sums[i][r] += value * projection.lora_in[(first_row + r) * projection.lora_pitch + k];
        }
      }
#pragma unroll
      for (int r = 0; r < Rows; ++r) {
        for (int offset = kWarp / 2; offset > 0; offset /= 2) {
          sums[i][r] += __shfl_xor_sync(0xffffffffu, sums[i][r], offset);
        }
        if (lane == 0) shared[warp][i * Rows + r] = sums[i][r];
      }
    }
  }
  __syncthreads();
  const int outputs = args.gated ? kGroup / 2 : kGroup;
  for (int at = static_cast<int>(threadIdx.x); at < kWarps / splits * outputs * Rows; at += kWarps * kWarp) {
    const int r = at % Rows, i = at / Rows % outputs, own = at / Rows / outputs;
    const auto sum = [&](int of) {
      float total = 0;
      for (int part = 0; part < splits; ++part) total += shared[own * splits + part][of * Rows + r];
      return total;
    };
    finish<T>(args, first_group + own, i, first_row + r, sum);
  }
}

// Enough warps to keep memory busy, where rows are long enough to be shared by several.
int splits_of(int64_t groups, int64_t vectors, int multiprocessors) {
  int splits = 1;
  while (splits < kWarps && groups * splits < int64_t{16} * multiprocessors && vectors > splits * kWarp) splits *= 2;
  return splits;
}

template <typename T, JoinedWeight Kind, int Rows, bool Vectors>
void launch(const Joined& args, int multiprocessors, cudaStream_t stream) {
  const int64_t groups = group_total(args), width = Vectors ? vector_width<T, Kind>() : 1;
  const int splits = splits_of(groups, args.in / width, multiprocessors);
  const int64_t held = kWarps / splits;
  const dim3 grid(static_cast<unsigned>((groups + held - 1) / held),
                  static_cast<unsigned>((args.rows + Rows - 1) / Rows));
  joined_kernel<T, Kind, Rows, Vectors><<<grid, kWarps * kWarp, 0, stream>>>(args, groups, splits);
}

template <typename T, JoinedWeight Kind>
void launch_rows(const Joined& args, int multiprocessors, cudaStream_t stream) {
  if (!reads_vectors(Kind, args, sizeof(T))) return launch<T, Kind, 8, false>(args, multiprocessors, stream);
  if (args.rows == 1) return launch<T, Kind, 1, true>(args, multiprocessors, stream);
  if (args.rows == 2) return launch<T, Kind, 2, true>(args, multiprocessors, stream);
  if (args.rows <= 4) return launch<T, Kind, 4, true>(args, multiprocessors, stream);
  return launch<T, Kind, 8, true>(args, multiprocessors, stream);
}

template <typename T>
void launch_kind(JoinedWeight weight, const Joined& args, int multiprocessors, cudaStream_t stream) {
  switch (weight) {
    case JoinedWeight::kValues:
      return launch_rows<T, JoinedWeight::kValues>(args, multiprocessors, stream);
    case JoinedWeight::kInt8:
      return launch_rows<T, JoinedWeight::kInt8>(args, multiprocessors, stream);
    case JoinedWeight::kNf4:
      return launch_rows<T, JoinedWeight::kNf4>(args, multiprocessors, stream);
  }
}

}  // namespace

int launch_joined(JoinedType type, JoinedWeight weight, const Joined& args, int multiprocessors, void* stream) {
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (type) {
    case JoinedType::kFloat32:
      launch_kind<float>(weight, args, multiprocessors, on);
      break;
    case JoinedType::kBFloat16:
      launch_kind<__nv_bfloat16>(weight, args, multiprocessors, on);
      break;
    case JoinedType::kFloat16:
      launch_kind<__half>(weight, args, multiprocessors, on);
      break;
  }
  return cudaGetLastError();
}

}  // namespace voxtorch::kernels

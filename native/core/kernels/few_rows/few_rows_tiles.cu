// few_rows_joined on CUDA for more rows than eight, of int8 and NF4: a block dequantizes a tile of weights into shared
// memory once and multiplies 64 rows with it, so that no weight is ever in memory as values. Sums are float32, on
// CUDA's cores: of some hundred rows a dequantized weight and a product on tensor cores take less time.
#include "core/kernels/few_rows/joined.cuh"

namespace voxtorch::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 64;   // rows, and outputs, of a block
constexpr int kDepth = 32;  // inputs that are in shared memory at once
constexpr int kEach = 4;    // rows, and outputs, of a thread
constexpr int kPitch = kTile + kEach;
constexpr int kPiece = 8;  // inputs of a row that a thread brings to shared memory

static_assert(kTile / kEach * (kTile / kEach) == kThreads && kTile * kDepth == kThreads * kPiece && kEach == kGroup);

// Inputs [begin, begin + kPiece) of a row, 0 after its end.
template <typename T, bool Vectors>
__device__ void read_inputs(const T* row, int64_t begin, int64_t in, float (&to)[kPiece]) {
  if constexpr (Vectors && sizeof(T) == 2) {
    struct alignas(16) {
      T lane[kPiece];
    } piece{};
    if (begin < in) piece = *reinterpret_cast<const decltype(piece)*>(row + begin);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) to[i] = begin < in ? static_cast<float>(piece.lane[i]) : 0.0f;
  } else {
#pragma unroll
    for (int i = 0; i < kPiece; ++i) to[i] = begin + i < in ? static_cast<float>(row[begin + i]) : 0.0f;
  }
}

// The same of a row of weights, with NF4's scales.
template <typename T, JoinedWeight Kind, bool Vectors>
__device__ void read_weights(const JoinedProjection& projection, int64_t row, int64_t begin, int64_t in,
                             const float* table, float (&to)[kPiece]) {
  const int64_t first = row * in + begin;
  if constexpr (Vectors) {
    // A piece lies in one row: rows are whole vectors.
    const bool inside = begin < in;
    if constexpr (Kind == JoinedWeight::kNf4) {
      const unsigned word = inside ? static_cast<const unsigned*>(projection.weight)[first / 8] : 0;
      const float scale = inside ? projection.scale[first >> projection.shift] : 0.0f;
#pragma unroll
      for (int i = 0; i < kPiece; ++i) to[i] = scale * nf4_in(word, i, table);
    } else {
      const uint2 words = inside ? static_cast<const uint2*>(projection.weight)[first / 8] : uint2{0, 0};
#pragma unroll
      for (int i = 0; i < kPiece; ++i) to[i] = int8_in(i < 4 ? words.x : words.y, i % 4);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      to[i] = 0;
      if (begin + i >= in) continue;
      to[i] = code_at<T, Kind>(projection.weight, first + i, table);
      if (Kind == JoinedWeight::kNf4) to[i] *= projection.scale[(first + i) / projection.block];
    }
  }
}

template <typename T, JoinedWeight Kind, bool Vectors>
__global__ void __launch_bounds__(kThreads) tiles_kernel(Joined args) {
  __shared__ float table[16];
  __shared__ float4 inputs[kDepth][kPitch / kEach];
  __shared__ float4 weights[kDepth][kPitch / kEach];
  const int thread = static_cast<int>(threadIdx.x);
  // What the thread brings to shared memory: a piece of row `place` of the inputs, and of output `place`.
  const int place = thread % kTile, depth = thread / kTile * kPiece;
  const int64_t first_group = static_cast<int64_t>(blockIdx.x) * (kTile / kGroup);
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kTile;
  const Slot slot = slot_of(args, first_group + place / kGroup, place % kGroup);
  const JoinedProjection& projection = args.projections[slot.projection];
  const int64_t its_row = first_row + place < args.rows ? first_row + place : args.rows - 1;
  const T* const input = static_cast<const T*>(args.input) + its_row * args.in;
  // What it computes: a group, for four rows.
  const int column = thread % (kTile / kEach), row = thread / (kTile / kEach);
  float sums[kEach][kGroup] = {};

  if (threadIdx.x < 16) table[threadIdx.x] = args.values[threadIdx.x];
  __syncthreads();
  for (int64_t begin = 0; begin < args.in; begin += kDepth) {
    float piece[kPiece];
    read_inputs<T, Vectors>(input, begin + depth, args.in, piece);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) reinterpret_cast<float*>(inputs[depth + i])[place] = piece[i];
    read_weights<T, Kind, Vectors>(projection, slot.row, begin + depth, args.in, table, piece);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) reinterpret_cast<float*>(weights[depth + i])[place] = piece[i];
    __syncthreads();
#pragma unroll 8
    for (int k = 0; k < kDepth; ++k) {
      const float4 four_inputs = inputs[k][row], four_weights = weights[k][column];
      const float x[kEach] = {four_inputs.x, four_inputs.y, four_inputs.z, four_inputs.w};
      const float w[kGroup] = {four_weights.x, four_weights.y, four_weights.z, four_weights.w};
#pragma unroll
      for (int r = 0; r < kEach; ++r) {
#pragma unroll
        for (int i = 0; i < kGroup; ++i) sums[r][i] += x[r] * w[i];
      }
    }
    __syncthreads();
  }

  const int64_t group = first_group + column;
#pragma unroll
  for (int i = 0; i < kGroup; ++i) {
    const Slot own = slot_of(args, group, i);
    const JoinedProjection& of = args.projections[own.projection];
    const float factor = row_factor<Kind>(of, own.row);
    const T* const b = static_cast<const T*>(of.lora_b);
#pragma unroll
    for (int r = 0; r < kEach; ++r) {
      const int64_t at = first_row + row * kEach + r;
      sums[r][i] *= factor;
      for (int64_t k = 0; b && at < args.rows && k < of.rank; ++k) {
        sums[r][i] += static_cast<float>(b[own.row * of.rank + k]) * of.lora_in[at * of.lora_pitch + k];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kEach; ++r) {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (args.gated && i >= kGroup / 2) continue;
      finish<T>(args, group, i, first_row + row * kEach + r, [&](int of) { return sums[r][of]; });
    }
  }
}

template <typename T, JoinedWeight Kind>
void launch(const Joined& args, cudaStream_t stream) {
  const int64_t groups = group_total(args);
  constexpr int64_t kGroups = kTile / kGroup;
  const dim3 grid(static_cast<unsigned>((groups + kGroups - 1) / kGroups),
                  static_cast<unsigned>((args.rows + kTile - 1) / kTile));
  if (reads_vectors(Kind, args, sizeof(T))) {
    tiles_kernel<T, Kind, true><<<grid, kThreads, 0, stream>>>(args);
  } else {
    tiles_kernel<T, Kind, false><<<grid, kThreads, 0, stream>>>(args);
  }
}

template <typename T>
int launch_kind(JoinedWeight weight, const Joined& args, cudaStream_t stream) {
  if (weight == JoinedWeight::kValues) return cudaErrorInvalidValue;
  if (weight == JoinedWeight::kInt8) {
    launch<T, JoinedWeight::kInt8>(args, stream);
  } else {
    launch<T, JoinedWeight::kNf4>(args, stream);
  }
  return cudaGetLastError();
}

}  // namespace

int launch_joined_tiles(JoinedType type, JoinedWeight weight, const Joined& args, void* stream) {
  const cudaStream_t on = static_cast<cudaStream_t>(stream);
  switch (type) {
    case JoinedType::kFloat32:
      return launch_kind<float>(weight, args, on);
    case JoinedType::kBFloat16:
      return launch_kind<__nv_bfloat16>(weight, args, on);
    default:
      return launch_kind<__half>(weight, args, on);
  }
}

}  // namespace voxtorch::kernels

// What the CUDA kernels of few_rows_joined are given: raw pointers only. Nothing of ATen, so that they compile in
// seconds.
#pragma once

#include <cstdint>

namespace voxtorch::kernels {

enum class JoinedType { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };
enum class JoinedWeight { kValues = 0, kInt8 = 1, kNf4 = 2 };
enum class JoinedFunction { kNone, kSilu, kGelu, kGeluTanh, kQuickGelu, kRelu, kTanh, kMish };

constexpr int kMostJoined = 3;

struct JoinedProjection {
  const void* weight;    // [out, in], of NF4 two to a byte
  const float* scale;    // of int8 [out], of NF4 [ceil(out * in / block)]; else null
  const void* bias;      // [out] or null
  const void* lora_b;    // [out, rank] or null
  const float* lora_in;  // [rows, lora_pitch], the first `rank` of a row: scaling * input Aᵀ
  int64_t out;
  int64_t block;  // of NF4
  int shift;      // its logarithm, or -1 if that is not an integer
  int64_t rank, lora_pitch;
  float factor;  // of all that is not bias
};

// All contiguous. The result is [rows, width]: the projections side by side, or with `gated` function(first) * second.
struct Joined {
  const void* input;  // [rows, in]
  void* output;       // of the input's type, or float32 where `wide`
  int64_t rows, in, width;
  int count;
  JoinedFunction function;
  bool gated, wide;
  JoinedProjection projections[kMostJoined];
  float values[16];  // of NF4
};

// On the cudaStream_t `stream`; each returns a cudaError_t. All projections have weights of one kind. Rows are taken
// eight at once, and weights read again for the next eight; the tiles, for codes alone, take 64 at once.
int launch_joined(JoinedType type, JoinedWeight weight, const Joined& args, int multiprocessors, void* stream);
int launch_joined_tiles(JoinedType type, JoinedWeight weight, const Joined& args, void* stream);

}  // namespace voxtorch::kernels

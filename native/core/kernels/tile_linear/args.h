// What the kernels of tile_linear are given: raw pointers only, as in layer_norm/args.h.
#pragma once

#include <cstdint>

#include "core/kernels/builds.h"

namespace voxtorch::kernels {

// Outputs are computed in squares of 32 x 32. The weight lies in the order in which they read it: [out / 32, in / step,
// 2, 16, 16, step / 16], that is, of 32 outputs, for each step of 64 bytes of input, two tiles of 16 outputs; a row of
// a tile has 4 bytes (2 bfloat16 or 4 int8 of consecutive inputs) of each output.
constexpr int64_t kTileSide = 32;
constexpr int64_t kTileStep = 64;  // bytes

struct TileLinear {
  enum class Type { bfloat16, int8 };
  enum class Activation { none, gelu, gelu_tanh, relu };

  const void* input;  // [rows, in], contiguous
  const void* weight;
  const float* row_scale;     // [rows] and
  const float* column_scale;  // [out] of int8: what the sum is multiplied with; else null
  const float* bias;          // [out] or null
  const void* residual;       // [rows, out] of the output's type, or null: added after the activation
  void* output;               // [rows, out]
  bool is_bfloat16;           // the output; else float32
  Activation activation;
  Type type;
  int64_t rows, in, out;
};

// The rows [begin, end) of the outputs [from, to), both multiples of kTileSide.
using TileLinearSquares = void (*)(const TileLinear& args, int64_t begin, int64_t end, int64_t from, int64_t to);

// input [rows, in], float32 or bfloat16, as codes [rows, in] and what they are multiplied with, [rows]: the largest of
// each row becomes 127. A row that is not finite has the scale NaN.
struct RowCodes {
  const void* input;
  bool is_bfloat16;
  int8_t* codes;
  float* scale;
  int64_t in;
};
using QuantizeRows = void (*)(const RowCodes& args, int64_t begin, int64_t end);

// Sums of int8 are exact and what follows them is in one order, so every build gives the same bits, but for an
// activation. Only AMX takes bfloat16, which it sums in float32.
void tile_linear_default(const TileLinear& args, int64_t begin, int64_t end, int64_t from, int64_t to);
void quantize_rows_default(const RowCodes& args, int64_t begin, int64_t end);
#if defined(__x86_64__)
void tile_linear_avx2(const TileLinear& args, int64_t begin, int64_t end, int64_t from, int64_t to);
void quantize_rows_avx2(const RowCodes& args, int64_t begin, int64_t end);
void tile_linear_avx512(const TileLinear& args, int64_t begin, int64_t end, int64_t from, int64_t to);
void tile_linear_vnni(const TileLinear& args, int64_t begin, int64_t end, int64_t from, int64_t to);
void quantize_rows_avx512(const RowCodes& args, int64_t begin, int64_t end);
void tile_linear_amx(const TileLinear& args, int64_t begin, int64_t end, int64_t from, int64_t to);
#endif

}  // namespace voxtorch::kernels

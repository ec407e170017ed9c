// What the kernels of few_rows_linear are given: raw pointers only, as in layer_norm_args.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/kernels/builds.h"

namespace voxtorch::kernels {

struct FewRows {
  // int8 has one scale for a row; from q8_0 on the weights are GGUF's blocks as files have them, row after row.
  enum class Weight { float32, bfloat16, float16, int8, nf4, q8_0, q4_0, q4_1, q4_k, q6_k };

  const void*
      input;  // of float32, bfloat16 and float16: float [rows, in]; of the others what prepare_few_rows made of that
  const void* weight;  // [out, in], of nf4 two to a byte
  const float* scale;  // [out] of int8: what is multiplied with the sum; of nf4 [out * in / block]; else null
  const float* bias;   // [out] or null
  float* output;       // [rows, out], or rows that lie `stride` apart
  int64_t rows, in, out;
  Weight type;
  int64_t block = 0;              // of nf4
  const float* values = nullptr;  // the 16 of nf4
  int64_t stride = 0;             // 0: out

  constexpr int64_t step() const { return stride > 0 ? stride : out; }
};

// Codes of nf4 are taken in groups of 64, all with one scale: 16 words of 4 codes. So that they need no sorting, lane l
// of the first 16 inputs is that of the first code in word l, of the second 16 that of the second, and so on.
constexpr int64_t kNf4Group = 64;
constexpr int64_t kNf4Lanes = 16;

constexpr bool is_dense(FewRows::Weight type) { return type <= FewRows::Weight::float16; }
constexpr bool is_blocks(FewRows::Weight type) { return type >= FewRows::Weight::q8_0; }
// Kinds whose inputs become integers too, in blocks of 32.
constexpr bool has_integer_inputs(FewRows::Weight type) { return type == FewRows::Weight::int8 || is_blocks(type); }

// Weights of a block, which divide a row evenly, and its bytes.
struct BlockSize {
  int64_t weights, bytes;
};
constexpr BlockSize block_size(FewRows::Weight type) {
  switch (type) {
    case FewRows::Weight::float32:
      return {1, 4};
    case FewRows::Weight::bfloat16:
    case FewRows::Weight::float16:
      return {1, 2};
    case FewRows::Weight::int8:
      return {1, 1};
    case FewRows::Weight::nf4:
      return {kNf4Group, kNf4Group / 2};
    case FewRows::Weight::q8_0:
      return {32, 34};
    case FewRows::Weight::q4_0:
      return {32, 18};
    case FewRows::Weight::q4_1:
      return {32, 20};
    case FewRows::Weight::q4_k:
      return {256, 144};
    case FewRows::Weight::q6_k:
      return {256, 210};
  }
  return {1, 0};
}

// A prepared row of integer inputs: codes int8 [padded], the negative sum of each four int32 [padded / 4], the scale of
// each 32 float [padded / 32], and the scale times the sum of the 32 float [padded / 32]. What pads is zero.
constexpr int64_t kInputBlock = 32;
constexpr int64_t padded_inputs(int64_t in) { return (in + 63) / 64 * 64; }
constexpr int64_t integer_row_bytes(int64_t in) { return padded_inputs(in) / 4 * 9; }

// The outputs [begin, end). Every build sums in the same order, whatever the number of rows, so all give the same bits.
// `prepare`: float [rows, in] -> as many rows of integer_row_bytes, one after the other.
#define VOXTORCH_FEW_ROWS_BUILD(name)                                    \
  void few_rows_##name(const FewRows& args, int64_t begin, int64_t end); \
  void few_rows_prepare_##name(const float* input, int64_t rows, int64_t in, void* to)
VOXTORCH_FEW_ROWS_BUILD(default);
#if defined(__x86_64__)
VOXTORCH_FEW_ROWS_BUILD(avx2);
VOXTORCH_FEW_ROWS_BUILD(avx512);
VOXTORCH_FEW_ROWS_BUILD(avx512_vnni);
#endif
#undef VOXTORCH_FEW_ROWS_BUILD

}  // namespace voxtorch::kernels

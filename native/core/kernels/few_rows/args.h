// What the kernels of few_rows_linear are given: raw pointers only, as in layer_norm_args.h.
#pragma once

#include <cstdint>

namespace voxtorch::kernels {

struct FewRows {
  enum class Weight { float32, bfloat16, int8, nf4 };

  const float* input;  // [rows, in]; of nf4 in the order of kNf4Lanes
  const void* weight;  // [out, in], of nf4 two to a byte
  const float* scale;  // [out] of int8: what is multiplied with the sum; of nf4 [out * in / block]; else null
  const float* bias;   // [out] or null
  float* output;       // [rows, out]
  int64_t rows, in, out;
  Weight type;
  int64_t block = 0;              // of nf4
  const float* values = nullptr;  // the 16 of nf4
};

// Codes of nf4 are taken in groups of 64, all with one scale: 16 words of 4 codes. So that they need no sorting, lane l
// of the first 16 inputs is that of the first code in word l, of the second 16 that of the second, and so on.
constexpr int64_t kNf4Group = 64;
constexpr int64_t kNf4Lanes = 16;

// The outputs [begin, end). Every build sums in the same order, whatever the number of rows, so all give the same bits.
void few_rows_default(const FewRows& args, int64_t begin, int64_t end);
#if defined(__x86_64__)
void few_rows_avx2(const FewRows& args, int64_t begin, int64_t end);
void few_rows_avx512(const FewRows& args, int64_t begin, int64_t end);
#endif

}  // namespace voxtorch::kernels

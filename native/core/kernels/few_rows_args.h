// What the kernels of few_rows_linear are given: raw pointers only, as in layer_norm_args.h.
#pragma once

#include <cstdint>

namespace voxtorch::kernels {

struct FewRows {
  enum class Weight { float32, bfloat16, int8 };

  const float* input;  // [rows, in]
  const void* weight;  // [out, in]
  const float* scale;  // [out] of int8, else null: what is multiplied with the sum
  const float* bias;   // [out] or null
  float* output;       // [rows, out]
  int64_t rows, in, out;
  Weight type;
};

// The outputs [begin, end). Every build sums in the same order, whatever the number of rows, so all give the same bits.
void few_rows_default(const FewRows& args, int64_t begin, int64_t end);
#if defined(__x86_64__)
void few_rows_avx2(const FewRows& args, int64_t begin, int64_t end);
void few_rows_avx512(const FewRows& args, int64_t begin, int64_t end);
#endif

}  // namespace voxtorch::kernels

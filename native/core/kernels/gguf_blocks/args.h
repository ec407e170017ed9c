// The block formats of GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): a row is cut into blocks of 32
// or 256 weights, each with its own scale. Raw pointers only, as in layer_norm/args.h.
#pragma once

#include <cstdint>

#include "core/kernels/builds.h"

namespace voxtorch::kernels {

// Types by the numbers that files have.
enum GgufType : int64_t {
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q2_K = 10,
  Q3_K = 11,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  IQ4_NL = 20,
  IQ4_XS = 23,
  MXFP4 = 39
};

// So many blocks -> their weights, as float32 or rounded to bfloat16. Every build gives the same bits.
using DecodeGguf = void (*)(int64_t type, const uint8_t* from, int64_t blocks, void* to, bool is_bfloat16);
void decode_gguf_default(int64_t type, const uint8_t* from, int64_t blocks, void* to, bool is_bfloat16);
#if defined(__x86_64__)
void decode_gguf_avx2(int64_t type, const uint8_t* from, int64_t blocks, void* to, bool is_bfloat16);
void decode_gguf_avx512(int64_t type, const uint8_t* from, int64_t blocks, void* to, bool is_bfloat16);
#endif

}  // namespace voxtorch::kernels

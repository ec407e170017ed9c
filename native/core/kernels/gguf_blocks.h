// The block formats of GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): a row is cut into blocks of 32
// or 256 weights, each with its own scale.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace voxtorch::kernels {

// Types by the numbers that files have.
enum GgufType : int64_t { Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14 };

// blocks uint8, contiguous and on the CPU -> the values, of float32, bfloat16 or float16, to the bit those of
// llama.cpp's reference. Throws where the sizes and the number of bytes do not fit.
at::Tensor gguf_dequantize(const at::Tensor& blocks, int64_t type, at::IntArrayRef size, at::ScalarType dtype);
// The reverse, for Q8_0 and Q4_0: uint8 [bytes].
at::Tensor gguf_quantize(const at::Tensor& values, int64_t type);

}  // namespace voxtorch::kernels

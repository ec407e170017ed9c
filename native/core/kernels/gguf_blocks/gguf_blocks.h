#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "core/kernels/gguf_blocks/args.h"

namespace voxtorch::kernels {

// Weights of a block and its bytes; zeros for a type that is not of blocks.
struct GgufFormat {
  int64_t weights = 0, bytes = 0;
};
GgufFormat gguf_format(int64_t type);

// By the build for this processor; float32 is to the bit that of llama.cpp's reference.
void decode_gguf(int64_t type, const uint8_t* from, int64_t blocks, void* to, bool is_bfloat16);

// blocks uint8, contiguous and on the CPU -> the values, of float32, bfloat16 or float16. Throws where the sizes and
// the number of bytes do not fit.
at::Tensor gguf_dequantize(const at::Tensor& blocks, int64_t type, at::IntArrayRef size, at::ScalarType dtype);
// The reverse, for Q8_0 and Q4_0: uint8 [bytes].
at::Tensor gguf_quantize(const at::Tensor& values, int64_t type);

// x Wᵀ + b by the matrix tiles of processors with AMX, of so many rows that the product takes longer than making values
// of the blocks, which is done for a few outputs at a time and stays in the cache: input [..., in] of float32 or
// bfloat16, blocks uint8 [out, bytes of a row]. In bfloat16 with float32 sums.
bool takes_tiles(const at::Tensor& input);
at::Tensor gguf_linear(const at::Tensor& input, const at::Tensor& blocks, int64_t type,
                       const std::optional<at::Tensor>& bias);

}  // namespace voxtorch::kernels

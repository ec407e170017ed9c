// What the CUDA kernel of decode_attention is given: raw pointers only. Nothing of ATen, so that it compiles in
// seconds.
#pragma once

#include <cstdint>

namespace voxtorch::kernels {

enum class DecodeType { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

constexpr int64_t kMostDecodeDim = 256;
// Query heads of one key head that a block takes at once; more are a block of their own.
constexpr int64_t kDecodeHeads = 8;

// Strides in elements.
struct DecodePlaces {
  const void* data;  // [rows, kv_heads, capacity, dim]
  int64_t row, head, place, dim;
};

struct DecodeAttention {
  const void* query;  // [rows, heads, dim], contiguous
  DecodePlaces keys, values;
  const int64_t* position;  // one number on the device
  const bool* mask;         // [rows, mask_columns], or null
  int64_t mask_row, mask_columns;
  void* output;       // [rows, heads, dim], contiguous
  float* partial;     // [rows * heads * splits, dim + 2]: sums of values, the maximum, the sum of weights
  unsigned* tickets;  // zeros, one a row and block of heads; zeros again when the launch is done
  int64_t rows, heads, kv_heads, capacity, dim, window;
  float scale;
};

// Places that a block sees, and blocks that see a whole cache between them.
inline int64_t decode_chunk(int64_t capacity) {
  int64_t chunk = 64;
  while (chunk < 512 && chunk * 64 < capacity) chunk *= 2;
  return chunk;
}
inline int64_t decode_splits(int64_t capacity) {
  const int64_t chunk = decode_chunk(capacity);
  return (capacity + chunk - 1) / chunk;
}
// Blocks of query heads that share a key head.
inline int64_t decode_passes(int64_t heads, int64_t kv_heads) {
  return (heads / kv_heads + kDecodeHeads - 1) / kDecodeHeads;
}

// On the cudaStream_t `stream`; returns a cudaError_t.
int launch_decode_attention(DecodeType type, const DecodeAttention& args, void* stream);

}  // namespace voxtorch::kernels

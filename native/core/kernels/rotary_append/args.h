// What the CUDA kernel of rotary_append_ is given: raw pointers only. Nothing of ATen, so that it compiles in seconds.
#pragma once

#include <cstdint>

namespace voxtorch::kernels {

enum class RotaryType { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kFloat64 = 3 };

// Strides in elements.
struct CachePlaces {
  void* data;  // [rows, kv_heads, capacity, dim]
  int64_t row, head, place, dim;
};

struct RotaryAppend {
  const void* qkv;  // [rows, (heads + 2 * kv_heads) * dim], contiguous
  const void* cos;  // [rows or 1, rotated / 2], contiguous
  const void* sin;
  int64_t rotation_row;  // elements from one row of them to the next, 0 where all share one
  CachePlaces keys, values;
  const int64_t* position;  // one number on the device
  void* query;              // [rows, heads, dim], contiguous
  int64_t rows, heads, kv_heads, capacity, dim;
  int64_t rotated;  // the first dimensions of a head, whose halves rotate; the others stay as they are
};

// On the cudaStream_t `stream`; returns a cudaError_t. Nothing is written to a cache that has no such place.
int launch_rotary_append(RotaryType type, const RotaryAppend& args, void* stream);

}  // namespace voxtorch::kernels

// The scales of blocks, in every build of the kernels.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace voxtorch::kernels {
namespace {

// float16 as float32, those that are too small for its usual form too.
inline float half_at(const uint8_t* from) {
  uint16_t bits;
  std::memcpy(&bits, from, sizeof(bits));
#if defined(__F16C__)
  return _cvtsh_ss(bits);
#else
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16, rest = bits & 0x7fffu;
  float value;
  if (rest < 0x400u) {
    value = static_cast<float>(rest) * 0x1p-24f;
  } else {
    const uint32_t whole = (rest << 13) + (rest < 0x7c00u ? 112u << 23 : 224u << 23);
    std::memcpy(&value, &whole, sizeof(value));
  }
  uint32_t word;
  std::memcpy(&word, &value, sizeof(word));
  word |= sign;
  std::memcpy(&value, &word, sizeof(value));
  return value;
#endif
}

}  // namespace
}  // namespace voxtorch::kernels

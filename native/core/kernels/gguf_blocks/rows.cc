// Decoding of blocks to weights, compiled once for each instruction set (../builds.h).
#include "core/kernels/gguf_blocks/formats.h"

namespace voxtorch::kernels {
namespace {

// To the nearest, ties to even; a NaN keeps being one.
inline uint16_t rounded(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t near = bits + 0x7fffu + (bits >> 16 & 1u);
  return static_cast<uint16_t>((value != value ? bits | 0x400000u : near) >> 16);
}

}  // namespace

void VOXTORCH_BUILD(decode_gguf)(int64_t type, const uint8_t* from, int64_t blocks, void* to, bool is_bfloat16) {
  with_gguf_format(type, [&](auto format) {
    using Format = decltype(format);
    if (!is_bfloat16) {
      for (int64_t i = 0; i < blocks; ++i)
        Format::decode(from + i * Format::kBytes, static_cast<float*>(to) + i * Format::kWeights);
      return;
    }
    // Some blocks at a time: rounding what was stored just now would wait for it.
    constexpr int64_t kAtOnce = 1024 / Format::kWeights;
    alignas(64) float weights[1024];
    for (int64_t first = 0; first < blocks; first += kAtOnce) {
      const int64_t count = blocks - first < kAtOnce ? blocks - first : kAtOnce;
      for (int64_t i = 0; i < count; ++i)
        Format::decode(from + (first + i) * Format::kBytes, weights + i * Format::kWeights);
      auto* const halves = static_cast<uint16_t*>(to) + first * Format::kWeights;
      for (int64_t k = 0; k < count * Format::kWeights; ++k) halves[k] = rounded(weights[k]);
    }
  });
}

}  // namespace voxtorch::kernels

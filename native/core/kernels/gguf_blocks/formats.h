// The formats of args.h, each with how many weights a block has, how many bytes, and how the bytes become weights.
#pragma once

#include "core/kernels/gguf_blocks/args.h"
#include "core/kernels/gguf_blocks/half.h"

namespace voxtorch::kernels {
namespace {

// scale * (code - zero) + offset of 16 codes in the lower or upper halves of bytes. Left to itself, GCC takes these one
// by one for AVX2.
template <int shift>
inline void put_sixteen(const uint8_t* __restrict from, int zero, float scale, float offset, float* __restrict to) {
#if defined(__AVX2__)
  __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  if (shift > 0) bytes = _mm_srli_epi16(bytes, shift);
  bytes = _mm_sub_epi8(_mm_and_si128(bytes, _mm_set1_epi8(15)), _mm_set1_epi8(static_cast<char>(zero)));
#if defined(__AVX512F__)
  const __m512 codes = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  _mm512_storeu_ps(to, _mm512_add_ps(_mm512_mul_ps(codes, _mm512_set1_ps(scale)), _mm512_set1_ps(offset)));
#else
  for (int half = 0; half < 2; ++half, bytes = _mm_srli_si128(bytes, 8)) {
    const __m256 codes = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    _mm256_storeu_ps(to + 8 * half, _mm256_add_ps(_mm256_mul_ps(codes, _mm256_set1_ps(scale)), _mm256_set1_ps(offset)));
  }
#endif
#else
  for (int i = 0; i < 16; ++i) to[i] = scale * static_cast<float>((from[i] >> shift & 15) - zero) + offset;
#endif
}

struct FourBits {  // Q4_0: scale, 16 bytes of two weights, the lower half first
  static constexpr int64_t kWeights = 32, kBytes = 18;
  static inline void decode(const uint8_t* __restrict block, float* __restrict to) {
    const float d = half_at(block);
    put_sixteen<0>(block + 2, 8, d, -0.0f, to);  // which changes no zero either
    put_sixteen<4>(block + 2, 8, d, -0.0f, to + 16);
  }
};

struct FourBitsAndLeast {  // Q4_1: scale, least weight
  static constexpr int64_t kWeights = 32, kBytes = 20;
  static inline void decode(const uint8_t* __restrict block, float* __restrict to) {
    const float d = half_at(block), m = half_at(block + 2);
    put_sixteen<0>(block + 4, 0, d, m, to);
    put_sixteen<4>(block + 4, 0, d, m, to + 16);
  }
};

inline uint32_t word_at(const uint8_t* at) {
  uint32_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return bits;
}

struct FiveBits {  // Q5_0: scale, the fifth bits, the others
  static constexpr int64_t kWeights = 32, kBytes = 22;
  static inline void decode(const uint8_t* __restrict block, float* __restrict to) {
    const float d = half_at(block);
    const uint32_t high = word_at(block + 2);
    for (int i = 0; i < 16; ++i) {
      const int low = (block[6 + i] & 15) | static_cast<int>((high >> i & 1) << 4);
      const int upper = (block[6 + i] >> 4) | static_cast<int>((high >> (i + 16) & 1) << 4);
      to[i] = d * static_cast<float>(low - 16);
      to[i + 16] = d * static_cast<float>(upper - 16);
    }
  }
};

struct FiveBitsAndLeast {  // Q5_1
  static constexpr int64_t kWeights = 32, kBytes = 24;
  static inline void decode(const uint8_t* __restrict block, float* __restrict to) {
    const float d = half_at(block), m = half_at(block + 2);
    const uint32_t high = word_at(block + 4);
    for (int i = 0; i < 16; ++i) {
      const int low = (block[8 + i] & 15) | static_cast<int>((high >> i & 1) << 4);
      const int upper = (block[8 + i] >> 4) | static_cast<int>((high >> (i + 16) & 1) << 4);
      to[i] = d * static_cast<float>(low) + m;
      to[i + 16] = d * static_cast<float>(upper) + m;
    }
  }
};

struct EightBits {  // Q8_0: scale, 32 bytes
  static constexpr int64_t kWeights = 32, kBytes = 34;
  static inline void decode(const uint8_t* __restrict block, float* __restrict to) {
    const float d = half_at(block);
    for (int i = 0; i < 32; ++i) to[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * d;
  }
};

// The scales and least weights of the eight parts of a Q4_K or Q5_K block, six bits each in twelve bytes.
struct PartScales {
  uint8_t scale[8], least[8];
  explicit PartScales(const uint8_t* packed) {
    for (int i = 0; i < 4; ++i) {
      scale[i] = packed[i] & 63;
      least[i] = packed[i + 4] & 63;
      scale[i + 4] = static_cast<uint8_t>((packed[i + 8] & 15) | ((packed[i] >> 2) & 48));
      least[i + 4] = static_cast<uint8_t>((packed[i + 8] >> 4) | ((packed[i + 4] >> 2) & 48));
    }
  }
};

struct FourBitsOf256 {  // Q4_K: two scales, the parts' scales, 128 bytes of two weights
  static constexpr int64_t kWeights = 256, kBytes = 144;
  static inline void decode(const uint8_t* __restrict block, float* __restrict to) {
    const float d = half_at(block), least = half_at(block + 2);
    const PartScales parts(block + 4);
    const uint8_t* codes = block + 16;
    for (int part = 0; part < 8; ++part) {
      const float scale = d * static_cast<float>(parts.scale[part]);
      const float offset = least * static_cast<float>(parts.least[part]);
      const uint8_t* from = codes + part / 2 * 32;
      for (int i = 0; i < 32; i += 16, to += 16) {
        if (part % 2 == 0)
          put_sixteen<0>(from + i, 0, scale, -offset, to);
        else
          put_sixteen<4>(from + i, 0, scale, -offset, to);
      }
    }
  }
};

struct FiveBitsOf256 {  // Q5_K: as Q4_K, with 32 bytes of fifth bits, a bit of each byte for a part
  static constexpr int64_t kWeights = 256, kBytes = 176;
  static inline void decode(const uint8_t* __restrict block, float* __restrict to) {
    const float d = half_at(block), least = half_at(block + 2);
    const PartScales parts(block + 4);
    const uint8_t *high = block + 16, *codes = block + 48;
    for (int part = 0; part < 8; ++part) {
      const float scale = d * static_cast<float>(parts.scale[part]);
      const float offset = least * static_cast<float>(parts.least[part]);
      const uint8_t* from = codes + part / 2 * 32;
      const int shift = part % 2 * 4;
      for (int i = 0; i < 32; ++i) {
        const int code = ((from[i] >> shift) & 15) | ((high[i] >> part & 1) << 4);
        *to++ = scale * static_cast<float>(code) - offset;
      }
    }
  }
};

struct SixBitsOf256 {  // Q6_K: 128 bytes of lower bits, 64 of upper ones, 16 scales, the scale of all
  static constexpr int64_t kWeights = 256, kBytes = 210;
  static inline void decode(const uint8_t* __restrict block, float* __restrict to) {
    const float d = half_at(block + 208);
    const auto* scales = reinterpret_cast<const int8_t*>(block + 192);
    for (int part = 0; part < 8; ++part) {
      const int half = part / 4, quarter = part % 4;
      const uint8_t* const low = block + half * 64 + quarter % 2 * 32;
      const uint8_t* const high = block + 128 + half * 32;
      const int shift = quarter / 2 * 4, upper = quarter * 2;
      for (int side = 0; side < 2; ++side) {
        const float scale = d * static_cast<float>(scales[part * 2 + side]);
        for (int i = side * 16; i < side * 16 + 16; ++i) {
          const int code = ((low[i] >> shift) & 15) | ((high[i] >> upper & 3) << 4);
          *to++ = scale * static_cast<float>(code - 32);
        }
      }
    }
  }
};

struct TwoBitsOf256 {  // Q2_K: 16 scales and least weights of four bits each, 64 bytes of four weights, two scales
  static constexpr int64_t kWeights = 256, kBytes = 84;
  static inline void decode(const uint8_t* __restrict block, float* __restrict to) {
    const float d = half_at(block + 80), least = half_at(block + 82);
    const uint8_t* const codes = block + 16;
    for (int part = 0; part < 16; ++part) {
      const float scale = d * static_cast<float>(block[part] & 15);
      const float offset = least * static_cast<float>(block[part] >> 4);
      const uint8_t* const from = codes + part / 8 * 32 + part % 2 * 16;
      const int shift = part % 8 / 2 * 2;
      for (int i = 0; i < 16; ++i) *to++ = scale * static_cast<float>(from[i] >> shift & 3) - offset;
    }
  }
};

struct ThreeBitsOf256 {  // Q3_K: 32 bytes of third bits, 64 of four weights, 16 scales of six bits, the scale of all
  static constexpr int64_t kWeights = 256, kBytes = 110;
  static inline void decode(const uint8_t* __restrict block, float* __restrict to) {
    const float d = half_at(block + 108);
    const uint8_t *codes = block + 32, *scales = block + 96;
    for (int part = 0; part < 16; ++part) {
      const int low = scales[part % 8] >> part / 8 * 4 & 15, upper = scales[8 + part % 4] >> part / 4 * 2 & 3;
      const float scale = d * static_cast<float>((low | upper << 4) - 32);
      const uint8_t *from = codes + part / 8 * 32 + part % 2 * 16, *high = block + part % 2 * 16;
      const int shift = part % 8 / 2 * 2, bit = part / 2;
      for (int i = 0; i < 16; ++i) {
        const int code = (from[i] >> shift & 3) | (high[i] >> bit & 1) << 2;
        *to++ = scale * static_cast<float>(code - 4);
      }
    }
  }
};

// Weights of four bits by a table, the lower halves of 16 bytes first.
inline void put_from_table(const int8_t* table, float scale, const uint8_t* __restrict from, float* __restrict to) {
  for (int i = 0; i < 16; ++i) {
    to[i] = scale * static_cast<float>(table[from[i] & 15]);
    to[i + 16] = scale * static_cast<float>(table[from[i] >> 4]);
  }
}

constexpr int8_t kUneven[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

struct UnevenFourBits {  // IQ4_NL: scale, 16 bytes of two weights
  static constexpr int64_t kWeights = 32, kBytes = 18;
  static inline void decode(const uint8_t* __restrict block, float* __restrict to) {
    put_from_table(kUneven, half_at(block), block + 2, to);
  }
};

struct UnevenFourBitsOf256 {  // IQ4_XS: scale, upper two and lower four bits of the parts' scales, 128 bytes
  static constexpr int64_t kWeights = 256, kBytes = 136;
  static inline void decode(const uint8_t* __restrict block, float* __restrict to) {
    const float d = half_at(block);
    for (int part = 0; part < 8; ++part, to += 32) {
      const int upper = block[2 + part / 4] >> part % 4 * 2 & 3, low = block[4 + part / 2] >> part % 2 * 4 & 15;
      put_from_table(kUneven, d * static_cast<float>((low | upper << 4) - 32), block + 8 + part * 16, to);
    }
  }
};

// Twice the values of a 4-bit float: a sign, two bits of exponent and one of mantissa.
constexpr int8_t kTinyFloats[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

struct TinyFloats {  // MXFP4 (https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf)
  static constexpr int64_t kWeights = 32, kBytes = 17;
  static inline void decode(const uint8_t* __restrict block, float* __restrict to) {
    // 2^(exponent - 128), half the scale, whose smallest two values are denormal.
    const uint32_t exponent = block[0], bits = exponent < 2 ? 0x200000u << exponent : (exponent - 1) << 23;
    float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    put_from_table(kTinyFloats, scale, block + 1, to);
  }
};

template <typename Work>
bool with_gguf_format(int64_t type, const Work& work) {
  switch (type) {
    case Q4_0:
      return work(FourBits{}), true;
    case Q4_1:
      return work(FourBitsAndLeast{}), true;
    case Q5_0:
      return work(FiveBits{}), true;
    case Q5_1:
      return work(FiveBitsAndLeast{}), true;
    case Q8_0:
      return work(EightBits{}), true;
    case Q4_K:
      return work(FourBitsOf256{}), true;
    case Q5_K:
      return work(FiveBitsOf256{}), true;
    case Q6_K:
      return work(SixBitsOf256{}), true;
    case Q2_K:
      return work(TwoBitsOf256{}), true;
    case Q3_K:
      return work(ThreeBitsOf256{}), true;
    case IQ4_NL:
      return work(UnevenFourBits{}), true;
    case IQ4_XS:
      return work(UnevenFourBitsOf256{}), true;
    case MXFP4:
      return work(TinyFloats{}), true;
    default:
      return false;
  }
}

}  // namespace
}  // namespace voxtorch::kernels

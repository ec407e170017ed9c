#include "core/kernels/gguf_blocks.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using c10::BFloat16;
using c10::Half;

float half_at(const uint8_t* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return static_cast<float>(Half(bits, Half::from_bits()));
}

// Each format says how many weights a block has, how many bytes, and how the bytes become weights.
struct FourBits {  // Q4_0: scale, 16 bytes of two weights, the lower half first
  static constexpr int64_t kWeights = 32, kBytes = 18;
  static void decode(const uint8_t* block, float* to) {
    const float d = half_at(block);
    for (int i = 0; i < 16; ++i) {
      to[i] = d * static_cast<float>((block[2 + i] & 15) - 8);
      to[i + 16] = d * static_cast<float>((block[2 + i] >> 4) - 8);
    }
  }
};

struct FourBitsAndLeast {  // Q4_1: scale, least weight
  static constexpr int64_t kWeights = 32, kBytes = 20;
  static void decode(const uint8_t* block, float* to) {
    const float d = half_at(block), m = half_at(block + 2);
    for (int i = 0; i < 16; ++i) {
      to[i] = d * static_cast<float>(block[4 + i] & 15) + m;
      to[i + 16] = d * static_cast<float>(block[4 + i] >> 4) + m;
    }
  }
};

uint32_t word_at(const uint8_t* at) {
  uint32_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return bits;
}

struct FiveBits {  // Q5_0: scale, the fifth bits, the others
  static constexpr int64_t kWeights = 32, kBytes = 22;
  static void decode(const uint8_t* block, float* to) {
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
  static void decode(const uint8_t* block, float* to) {
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
  static void decode(const uint8_t* block, float* to) {
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
  static void decode(const uint8_t* block, float* to) {
    const float d = half_at(block), least = half_at(block + 2);
    const PartScales parts(block + 4);
    const uint8_t* codes = block + 16;
    for (int part = 0; part < 8; ++part) {
      const float scale = d * static_cast<float>(parts.scale[part]);
      const float offset = least * static_cast<float>(parts.least[part]);
      const uint8_t* from = codes + part / 2 * 32;
      const int shift = part % 2 * 4;
      for (int i = 0; i < 32; ++i) *to++ = scale * static_cast<float>((from[i] >> shift) & 15) - offset;
    }
  }
};

struct FiveBitsOf256 {  // Q5_K: as Q4_K, with 32 bytes of fifth bits, a bit of each byte for a part
  static constexpr int64_t kWeights = 256, kBytes = 176;
  static void decode(const uint8_t* block, float* to) {
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
  static void decode(const uint8_t* block, float* to) {
    const float d = half_at(block + 208);
    const auto* scales = reinterpret_cast<const int8_t*>(block + 192);
    for (int i = 0; i < 256; ++i) {
      const int half = i / 128, quarter = i % 128 / 32, at = i % 32;
      const uint8_t low = block[half * 64 + quarter % 2 * 32 + at];
      const uint8_t high = block[128 + half * 32 + at];
      const int code = ((low >> (quarter / 2 * 4)) & 15) | ((high >> (quarter * 2) & 3) << 4);
      to[i] = d * static_cast<float>(scales[i / 16]) * static_cast<float>(code - 32);
    }
  }
};

// Blocks that one thread takes at a time: below, waking another costs more.
constexpr int64_t kGrain = 2048;

template <typename Format, typename Value>
void decode_all(const uint8_t* from, Value* to, int64_t blocks) {
  at::parallel_for(0, blocks, kGrain * 32 / Format::kWeights, [&](int64_t begin, int64_t end) {
    float weights[Format::kWeights];
    for (int64_t i = begin; i < end; ++i) {
      Format::decode(from + i * Format::kBytes, weights);
      for (int64_t k = 0; k < Format::kWeights; ++k) to[i * Format::kWeights + k] = static_cast<Value>(weights[k]);
    }
  });
}

template <typename Format>
Tensor decoded(const Tensor& blocks, at::IntArrayRef size, at::ScalarType dtype) {
  int64_t count = 1;
  for (const int64_t length : size) {
    TORCH_CHECK_VALUE(length >= 0 && (length == 0 || count <= std::numeric_limits<int64_t>::max() / length),
                      "a tensor of sizes ", size, " is impossible");
    count *= length;
  }
  TORCH_CHECK_VALUE(!size.empty() && size.back() % Format::kWeights == 0, "rows of ", size, " are no whole blocks of ",
                    Format::kWeights);
  const int64_t number = count / Format::kWeights;
  TORCH_CHECK_VALUE(blocks.numel() % Format::kBytes == 0 && blocks.numel() / Format::kBytes == number, "sizes ", size,
                    " take ", number, " blocks of ", Format::kBytes, " bytes, got ", blocks.numel(), " bytes");
  Tensor result = at::empty(size, at::TensorOptions().dtype(dtype));
  const uint8_t* from = blocks.const_data_ptr<uint8_t>();
  if (dtype == at::kFloat)
    decode_all<Format>(from, result.mutable_data_ptr<float>(), number);
  else if (dtype == at::kBFloat16)
    decode_all<Format>(from, result.mutable_data_ptr<BFloat16>(), number);
  else
    decode_all<Format>(from, result.mutable_data_ptr<Half>(), number);
  return result;
}

}  // namespace

Tensor gguf_dequantize(const Tensor& blocks, int64_t type, at::IntArrayRef size, at::ScalarType dtype) {
  // Weights that are read inside inferenceMode may be trained outside of it.
  const c10::InferenceMode no_inference(false);
  TORCH_CHECK_TYPE(blocks.scalar_type() == at::kByte, "blocks must be uint8, not ", blocks.scalar_type());
  TORCH_CHECK_VALUE(blocks.is_cpu() && blocks.is_contiguous(), "blocks must be contiguous and on the CPU");
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf,
                   "dtype must be float32, bfloat16 or float16, not ", dtype);
  switch (type) {
    case Q4_0:
      return decoded<FourBits>(blocks, size, dtype);
    case Q4_1:
      return decoded<FourBitsAndLeast>(blocks, size, dtype);
    case Q5_0:
      return decoded<FiveBits>(blocks, size, dtype);
    case Q5_1:
      return decoded<FiveBitsAndLeast>(blocks, size, dtype);
    case Q8_0:
      return decoded<EightBits>(blocks, size, dtype);
    case Q4_K:
      return decoded<FourBitsOf256>(blocks, size, dtype);
    case Q5_K:
      return decoded<FiveBitsOf256>(blocks, size, dtype);
    case Q6_K:
      return decoded<SixBitsOf256>(blocks, size, dtype);
    default:
      TORCH_CHECK_VALUE(false, "blocks of type ", type, " cannot be read");
  }
}

namespace {

void put_half(uint8_t* to, float value) {
  const uint16_t bits = Half(value).x;
  std::memcpy(to, &bits, sizeof bits);
}

void encode_eight(const float* from, uint8_t* block) {
  float most = 0;
  for (int i = 0; i < 32; ++i) most = std::max(most, std::fabs(from[i]));
  const float d = most / 127;
  const float inverse = d == 0 ? 0 : 1 / d;
  put_half(block, d);
  for (int i = 0; i < 32; ++i) block[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(std::round(from[i] * inverse)));
}

void encode_four(const float* from, uint8_t* block) {
  // The weight that is farthest from 0 becomes -8 exactly, whatever its sign.
  float most = 0, farthest = 0;
  for (int i = 0; i < 32; ++i) {
    if (std::fabs(from[i]) > most) {
      most = std::fabs(from[i]);
      farthest = from[i];
    }
  }
  const float d = farthest / -8;
  const float inverse = d == 0 ? 0 : 1 / d;
  put_half(block, d);
  const auto code = [&](float value) {
    return static_cast<uint8_t>(std::clamp(static_cast<int>(value * inverse + 8.5F), 0, 15));
  };
  for (int i = 0; i < 16; ++i) block[2 + i] = static_cast<uint8_t>(code(from[i]) | code(from[i + 16]) << 4);
}

}  // namespace

Tensor gguf_quantize(const Tensor& values, int64_t type) {
  TORCH_CHECK_VALUE(type == Q8_0 || type == Q4_0, "blocks of type ", type, " cannot be written");
  TORCH_CHECK_VALUE(values.dim() > 0 && values.size(-1) % 32 == 0, "rows of ", values.sizes(),
                    " are no whole blocks of 32");
  const Tensor whole = values.detach().to(at::kCPU, at::kFloat).contiguous();
  const int64_t bytes = type == Q8_0 ? EightBits::kBytes : FourBits::kBytes;
  const int64_t blocks = whole.numel() / 32;
  Tensor result = at::empty({blocks * bytes}, at::TensorOptions().dtype(at::kByte));
  const float* from = whole.const_data_ptr<float>();
  auto* to = result.mutable_data_ptr<uint8_t>();
  // What float16 can hold as a scale.
  const float most = type == Q8_0 ? 65504.F * 127 : 65504.F * 8;
  at::parallel_for(0, blocks, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int k = 0; k < 32; ++k) {
        TORCH_CHECK_VALUE(std::fabs(from[i * 32 + k]) <= most, "the weight ", from[i * 32 + k],
                          " has no place in blocks");
      }
      if (type == Q8_0)
        encode_eight(from + i * 32, to + i * bytes);
      else
        encode_four(from + i * 32, to + i * bytes);
    }
  });
  return result;
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // `type` is the number that files have; the blocks of all rows follow each other without gaps.
  m.def("gguf_dequantize(Tensor blocks, int type, int[] size, *, ScalarType dtype=float) -> Tensor", gguf_dequantize);
  m.def("gguf_quantize(Tensor values, int type) -> Tensor", gguf_quantize);
}

}  // namespace voxtorch::kernels

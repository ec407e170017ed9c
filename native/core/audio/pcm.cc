#include "core/audio/pcm.h"

#include <array>
#include <bit>
#include <cstring>
#include <type_traits>

namespace voxtorch::audio {
namespace {

template <typename Value>
Value load(const uint8_t* at, bool is_swapped) {
  using Bits =
      std::conditional_t<sizeof(Value) == 2, uint16_t, std::conditional_t<sizeof(Value) == 4, uint32_t, uint64_t>>;
  Bits bits;
  std::memcpy(&bits, at, sizeof(bits));
  if (is_swapped) {
    if constexpr (sizeof(Value) == 2) bits = __builtin_bswap16(bits);
    if constexpr (sizeof(Value) == 4) bits = __builtin_bswap32(bits);
    if constexpr (sizeof(Value) == 8) bits = __builtin_bswap64(bits);
  }
  return std::bit_cast<Value>(bits);
}

// ITU-T G.711: sign, 3-bit exponent and 4-bit mantissa, decoded to the center of their interval.
constexpr float alaw_value(int code) {
  const int bits = code ^ 0x55;
  const int exponent = (bits >> 4) & 7;
  const int mantissa = (bits & 15) << 4;
  const int magnitude = exponent == 0 ? mantissa + 8 : (mantissa + 264) << (exponent - 1);
  return ((bits & 0x80) != 0 ? 1.0f : -1.0f) * static_cast<float>(magnitude) / 32768;
}
constexpr float mulaw_value(int code) {
  const int bits = ~code & 255;
  const int magnitude = ((((bits & 15) << 3) + 132) << ((bits >> 4) & 7)) - 132;
  return ((bits & 0x80) != 0 ? -1.0f : 1.0f) * static_cast<float>(magnitude) / 32768;
}

using Table = std::array<float, 256>;
constexpr Table table_of(float (*value_of)(int)) {
  Table table = {};
  for (int code = 0; code < 256; ++code) table[static_cast<size_t>(code)] = value_of(code);
  return table;
}
constexpr Table kALaw = table_of(alaw_value);
constexpr Table kMuLaw = table_of(mulaw_value);

// A stride that the compiler knows lets it convert several samples at once.
template <size_t kWidth, typename Read>
void convert(const uint8_t* bytes, size_t stride, size_t frames, float* samples, Read read) {
  if (stride == kWidth) {
    for (size_t i = 0; i < frames; ++i) samples[i] = read(bytes + kWidth * i);
  } else {
    for (size_t i = 0; i < frames; ++i, bytes += stride) samples[i] = read(bytes);
  }
}

template <typename Value, bool kSwapped>
void convert_values(const uint8_t* bytes, size_t stride, size_t frames, float* samples, double scale) {
  convert<sizeof(Value)>(bytes, stride, frames, samples, [scale](const uint8_t* at) {
    if constexpr (sizeof(Value) == 8) return static_cast<float>(load<Value>(at, kSwapped));
    // The scale is a power of two, so that rounding before it is the same.
    return static_cast<float>(load<Value>(at, kSwapped)) * static_cast<float>(scale);
  });
}

template <typename Value>
void convert_values(const uint8_t* bytes, size_t stride, bool is_big_endian, size_t frames, float* samples,
                    double scale) {
  if (is_big_endian == (std::endian::native == std::endian::big))
    convert_values<Value, false>(bytes, stride, frames, samples, scale);
  else
    convert_values<Value, true>(bytes, stride, frames, samples, scale);
}

}  // namespace

size_t pcm_width(PcmEncoding encoding) {
  constexpr size_t kWidths[kPcmEncodings] = {1, 1, 2, 3, 4, 4, 8, 1, 1};
  return kWidths[static_cast<size_t>(encoding)];
}

void decode_pcm(const uint8_t* bytes, PcmEncoding encoding, bool is_big_endian, size_t channels, size_t channel,
                size_t frames, float* samples) {
  const size_t width = pcm_width(encoding);
  const size_t stride = width * channels;
  bytes += width * channel;
  switch (encoding) {
    case PcmEncoding::kU8:
      return convert<1>(bytes, stride, frames, samples,
                        [](const uint8_t* at) { return static_cast<float>(*at - 128) / 128; });
    case PcmEncoding::kS8:
      return convert<1>(bytes, stride, frames, samples,
                        [](const uint8_t* at) { return static_cast<float>(static_cast<int8_t>(*at)) / 128; });
    case PcmEncoding::kS16:
      return convert_values<int16_t>(bytes, stride, is_big_endian, frames, samples, 0x1p-15);
    case PcmEncoding::kS24: {
      const size_t high = is_big_endian ? 0 : 2;
      return convert<3>(bytes, stride, frames, samples, [high](const uint8_t* at) {
        const uint32_t bits = static_cast<uint32_t>(at[high]) << 24 | static_cast<uint32_t>(at[1]) << 16 |
                              static_cast<uint32_t>(at[2 - high]) << 8;
        return static_cast<float>(static_cast<int32_t>(bits)) * 0x1p-31f;
      });
    }
    case PcmEncoding::kS32:
      return convert_values<int32_t>(bytes, stride, is_big_endian, frames, samples, 0x1p-31);
    case PcmEncoding::kF32:
      return convert_values<float>(bytes, stride, is_big_endian, frames, samples, 1);
    case PcmEncoding::kF64:
      return convert_values<double>(bytes, stride, is_big_endian, frames, samples, 1);
    case PcmEncoding::kALaw:
      return convert<1>(bytes, stride, frames, samples, [](const uint8_t* at) { return kALaw[*at]; });
    case PcmEncoding::kMuLaw:
      return convert<1>(bytes, stride, frames, samples, [](const uint8_t* at) { return kMuLaw[*at]; });
  }
}

}  // namespace voxtorch::audio

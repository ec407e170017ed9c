// Samples of uncompressed audio files. Nothing of ATen.
#pragma once

#include <cstddef>
#include <cstdint>

namespace voxtorch::audio {

// In the order of lib/audio/pcm.ts.
enum class PcmEncoding { kU8, kS8, kS16, kS24, kS32, kF32, kF64, kALaw, kMuLaw };
constexpr int kPcmEncodings = 9;

// Bytes of a sample.
size_t pcm_width(PcmEncoding encoding);

// Converts one channel of interleaved samples to float32; integers are divided by 2^(bits - 1).
void decode_pcm(const uint8_t* bytes, PcmEncoding encoding, bool is_big_endian, size_t channels, size_t channel,
                size_t frames, float* samples);

}  // namespace voxtorch::audio

// Headers and side information of MP3 frames.
#include <algorithm>
#include <cstring>

#include "core/audio/mp3_frame.h"

namespace voxtorch::audio {
namespace {

constexpr int kBitrates[2][15] = {
    {0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320},
    {0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160},
};
constexpr int kSampleRates[] = {44100, 48000, 32000};

uint32_t big_endian(const uint8_t* at) {
  return static_cast<uint32_t>(at[0]) << 24 | static_cast<uint32_t>(at[1]) << 16 | static_cast<uint32_t>(at[2]) << 8 |
         at[3];
}

Granule read_granule(BitReader& bits, bool is_full) {
  Granule granule = {};
  granule.bits = bits.read(12);
  granule.pairs = bits.read(9);
  granule.gain = static_cast<int>(bits.read(8));
  granule.scale_code = bits.read(is_full ? 4 : 9);
  const bool is_switched = bits.read(1) == 1;
  granule.block_type = is_switched ? bits.read(2) : 0;
  const bool is_mixed = is_switched && bits.read(1) == 1;
  granule.is_mixed = is_mixed && granule.block_type == 2;
  granule.table_count = is_switched ? 2 : 3;
  for (int i = 0; i < granule.table_count; ++i) granule.tables[i] = bits.read(5);
  if (is_switched) {
    for (int& gain : granule.window_gains) gain = static_cast<int>(bits.read(3));
    granule.regions[0] = granule.regions[1] = -1;
  } else {
    granule.regions[0] = static_cast<int>(bits.read(4)) + 1;
    granule.regions[1] = granule.regions[0] + static_cast<int>(bits.read(3)) + 1;
  }
  granule.preemphasis = is_full && bits.read(1) == 1;
  granule.step = bits.read(1) == 1 ? 1 : 0.5;
  granule.plain_quads = bits.read(1) == 1;
  return granule;
}

}  // namespace

std::optional<Mp3Header> read_mp3_header(const uint8_t* bytes, size_t count, size_t at) {
  if (at + kMp3HeaderBytes > count || bytes[at] != 0xff) return std::nullopt;
  const unsigned b1 = bytes[at + 1];
  const unsigned b2 = bytes[at + 2];
  const unsigned b3 = bytes[at + 3];
  const unsigned version = (b1 >> 3) & 3;
  const unsigned rate = (b2 >> 2) & 3;
  const unsigned bitrate = b2 >> 4;
  if ((b1 & 0xe6) != 0xe2 || version == 1 || rate == 3 || bitrate == 0 || bitrate == 15) return std::nullopt;
  Mp3Header header;
  header.is_full = version == 3;
  header.is_quarter = version == 0;
  header.sample_rate = kSampleRates[rate] >> (header.is_full ? 0 : version == 2 ? 1 : 2);
  const unsigned mode = b3 >> 6;
  header.channels = mode == 3 ? 1 : 2;
  header.side = (b1 & 1) == 0 ? 6 : 4;
  header.side_bytes = header.is_full ? (header.channels == 1 ? 17 : 32) : header.channels == 1 ? 9 : 17;
  const int bits = (header.is_full ? 144'000 : 72'000) * kBitrates[header.is_full ? 0 : 1][bitrate];
  header.bytes = static_cast<size_t>(bits / header.sample_rate) + ((b2 >> 1) & 1);
  if (header.bytes < header.side + header.side_bytes) return std::nullopt;
  header.middle_side = mode == 1 && (b3 & 32) != 0;
  header.intensity = mode == 1 && (b3 & 16) != 0;
  return header;
}

std::optional<EncoderInfo> read_encoder_info(const uint8_t* frame, const Mp3Header& header) {
  // The tag is at the end of the side information of a frame without checksum, even if the frame has one.
  for (const size_t begin : {kMp3HeaderBytes + header.side_bytes, header.side + header.side_bytes}) {
    if (begin + 8 > header.bytes) continue;
    if (std::memcmp(frame + begin, "Xing", 4) != 0 && std::memcmp(frame + begin, "Info", 4) != 0) continue;
    const uint32_t flags = big_endian(frame + begin + 4);
    EncoderInfo info;
    size_t at = begin + 8;
    if ((flags & 1) != 0) {
      if (at + 4 <= header.bytes) info.frames = big_endian(frame + at);
      at += 4;
    }
    at += ((flags & 2) != 0 ? 4 : 0) + ((flags & 4) != 0 ? 100 : 0) + ((flags & 8) != 0 ? 4 : 0);
    if (at + 24 > header.bytes || frame[at] == 0) return info;
    const uint32_t packed = big_endian(frame + at + 20) & 0xffffff;
    info.delay = static_cast<int>(packed >> 12);
    info.padding = static_cast<int>(packed & 4095);
    return info;
  }
  return std::nullopt;
}

SideInformation read_side_information(const uint8_t* frame, const Mp3Header& header) {
  BitReader bits(frame, header.bytes, header.side);
  SideInformation side = {};
  side.back = bits.read(header.is_full ? 9 : 8);
  bits.read(header.is_full ? (header.channels == 1 ? 5 : 3) : static_cast<unsigned>(header.channels));
  if (header.is_full) {
    for (int channel = 0; channel < header.channels; ++channel)
      for (bool& shared : side.shared[channel]) shared = bits.read(1) == 1;
  }
  for (int i = 0; i < header.granules(); ++i)
    for (int channel = 0; channel < header.channels; ++channel)
      side.granules[i][channel] = read_granule(bits, header.is_full);
  return side;
}

}  // namespace voxtorch::audio

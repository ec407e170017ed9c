// Parts of a frame of MPEG-1, 2 or 2.5 audio, layer III.
#pragma once

#include <cstdint>
#include <optional>

#include "core/audio/bit_reader.h"
#include "core/audio/mp3_tables.h"

namespace voxtorch::audio {

struct Mp3Header {
  bool is_full;     // MPEG-1, with two granules per frame; MPEG-2 and 2.5 have one
  bool is_quarter;  // MPEG-2.5, an unofficial extension
  int sample_rate;
  int channels;
  size_t bytes;  // of the whole frame
  size_t side;   // offset of the side information, after the optional checksum
  size_t side_bytes;
  bool middle_side;
  bool intensity;

  int granules() const { return is_full ? 2 : 1; }
  int samples() const { return kLines * granules(); }
  bool same_stream(const Mp3Header& other) const {
    return is_full == other.is_full && sample_rate == other.sample_rate;
  }
};

constexpr size_t kMp3HeaderBytes = 4;

// The header of a frame of layer III at a position, or nothing.
std::optional<Mp3Header> read_mp3_header(const uint8_t* bytes, size_t count, size_t at);

// What an encoder writes into a silent first frame: the samples that it added at both ends.
struct EncoderInfo {
  std::optional<uint32_t> frames;  // of the file without this one
  std::optional<int> delay;
  int padding = 0;
};

// The Xing or LAME tag of a frame; nothing in a frame with audio.
std::optional<EncoderInfo> read_encoder_info(const uint8_t* frame, const Mp3Header& header);

// Side information of one channel in one granule.
struct Granule {
  uint32_t bits;   // of scale factors and spectrum
  uint32_t pairs;  // of values before the quadruples
  int gain;
  unsigned scale_code;
  unsigned block_type;  // 0: long, 1: start, 2: three short blocks, 3: stop
  bool is_mixed;        // the two lowest bands are long blocks
  int table_count;
  unsigned tables[3];
  int window_gains[3];
  // Bands before the second and third region; -1 where the block type determines them.
  int regions[2];
  bool preemphasis;
  double step;  // multiplier of the scale factors
  bool plain_quads;

  // Number of long bands, before short ones.
  int long_bands(bool is_full) const {
    if (block_type != 2) return 22;
    return is_mixed ? (is_full ? 8 : 6) : 0;
  }
};

struct SideInformation {
  size_t back;             // offset of the data, in bytes of earlier frames
  bool shared[2][4];       // [channel]: whether the second granule reuses scale factors of the first
  Granule granules[2][2];  // [granule][channel]
};

SideInformation read_side_information(const uint8_t* frame, const Mp3Header& header);

struct ScaleFactors {
  // Of the long bands, then of each window of the short bands; the highest band has none.
  uint8_t values[40];
  uint8_t illegal[40];  // values that mean "no intensity position"
  bool preemphasis;
};

// `before`: those of the first granule, or nullptr.
ScaleFactors read_scale_factors(BitReader& bits, const Granule& granule, const Mp3Header& header, int channel,
                                const bool* shared, const ScaleFactors* before);

// Reads the spectrum of one channel: 576 values by frequency, those of three short blocks interleaved. It must be zeros
// before.
void read_spectrum(BitReader& bits, uint64_t end, const Granule& granule, const ScaleFactors& scale,
                   const Mp3Header& header, float* spectrum);

// Undoes joint stereo: mid/side, and intensity stereo above the end of the right channel. `scale` is of the right
// channel, or nullptr if it is silent.
void separate_stereo(float* left, float* right, const ScaleFactors* scale, const Granule& granule,
                     const Mp3Header& header);

// Alias reduction between neighboring bands; short blocks have none.
void reduce_aliasing(float* spectrum, const Granule& granule);

}  // namespace voxtorch::audio

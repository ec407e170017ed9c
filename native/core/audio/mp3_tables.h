// Tables of MPEG audio, layer III (ISO/IEC 11172-3 and 13818-3).
#pragma once

#include <cstdint>
#include <vector>

#include "core/audio/bit_reader.h"

namespace voxtorch::audio {

constexpr int kLines = 576;  // values of a spectrum

// Huffman code of pairs of numbers up to 15, both in one byte.
class PairCode {
 public:
  // The code as a tree: '-' and two branches, or a pair.
  explicit PairCode(const char* tree);

  // The entry of the next kQuick bits: a pair and, above it, the length of its codeword; 0 for longer codewords.
  static constexpr unsigned kQuick = 10;
  uint32_t quick(uint32_t bits) const { return quick_[bits]; }

  uint32_t read(BitReader& bits) const {
    const uint32_t quick = quick_[bits.peek(kQuick)];
    if (quick != 0) [[likely]] {
      bits.pass(quick >> 8);
      return quick & 255;
    }
    int node = 0;
    do node = tree_[static_cast<size_t>(node) + bits.read(1)];
    while (node >= 0);
    return static_cast<uint32_t>(~node);
  }

 private:
  int grow(const char*& text, uint32_t word, unsigned length);

  std::vector<int16_t> tree_;  // two branches per node: the complement of a pair, or the index of a node
  uint16_t quick_[1 << kQuick] = {};
};

// The code of a table, or nullptr for 0 (all values are zero), and for 4 and 14, which do not exist.
const PairCode* pair_code(unsigned table);
// Bits after a value of 15.
unsigned extra_bits(unsigned table);
// The code of table 32: quadruples of values up to 1 at the end of the spectrum. Table 33 is 4 uncoded bits.
const PairCode& quad_code();

// The first line of each scale factor band, and the end of the last: of long blocks, and of each window of short ones.
struct Bands {
  int long_ends[23];
  int short_ends[14];
};
const Bands& bands_of(int sample_rate);

extern const uint8_t kPreemphasis[22];  // increments of scale factors
extern const uint8_t kScaleBits[2]
                               [16];  // widths of the scale factors of lower and upper bands, by their code in MPEG-1
extern const uint8_t kScaleCounts[6][3]
                                 [4];  // in MPEG-2, numbers of scale factors of each width: [table][long, short, mixed]

extern const int32_t kHalfWindow[257];  // half of the synthesis window, in 65536ths

}  // namespace voxtorch::audio

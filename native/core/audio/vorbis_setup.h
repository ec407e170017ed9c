// Setup header of Vorbis I (https://xiph.org/vorbis/doc/Vorbis_I_spec.html): what all packets of a stream are decoded
// with.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/audio/audio_decoder.h"

namespace voxtorch::audio {

// Reader that begins at the least significant bit of each byte. Reading past the end of a packet sets `over`.
class PacketBits {
 public:
  PacketBits(const uint8_t* bytes, size_t count) : bytes_(bytes), count_(count), bits_(8 * count) {}

  bool over = false;

  // An unsigned integer of 0 to 32 bits; 0 if the packet ends before.
  uint32_t read(unsigned count) {
    if (position_ + count > bits_) {
      over = true;
      return 0;
    }
    const uint32_t value = peek(count);
    position_ += count;
    return value;
  }

  // The next 0 to 32 bits without reading them; zeros after the end.
  uint32_t peek(unsigned count) const {
    const size_t at = position_ >> 3;
    uint64_t word = 0;
    if (at + 8 <= count_ && std::endian::native == std::endian::little) [[likely]] {
      std::memcpy(&word, bytes_ + at, 8);
    } else {
      for (size_t i = 0; i < 8 && at + i < count_; ++i) word |= static_cast<uint64_t>(bytes_[at + i]) << (8 * i);
    }
    return static_cast<uint32_t>((word >> (position_ & 7)) & ((uint64_t{1} << count) - 1));
  }
  // Skips bits after peek().
  void pass(unsigned count) {
    position_ += count;
    if (position_ > bits_) over = true;
  }

 private:
  const uint8_t* bytes_;
  size_t count_;
  size_t bits_;
  size_t position_ = 0;
};

// The number of bits of an integer.
inline unsigned bits_of(size_t value) { return static_cast<unsigned>(std::bit_width(value)); }

// Each codeword stands for a number or, with vectors, for `dimensions` numbers.
class Codebook {
 public:
  // `lengths` of the codewords of all entries; 0 for unused ones. Throws unless they form a tree.
  Codebook(size_t dimensions, const std::vector<uint8_t>& lengths);

  size_t dimensions;
  std::vector<float> vectors;  // [entries, dimensions], or none
  bool has_vectors = false;

  // The next entry; -1 at the end of the packet.
  int32_t read(PacketBits& bits) const {
    const int32_t quick = quick_[bits.peek(kQuick)];
    if (quick != 0) [[likely]] {
      bits.pass(static_cast<unsigned>(quick >> 24));
      return bits.over ? -1 : quick & 0xffffff;
    }
    return read_long(bits);
  }

 private:
  static constexpr unsigned kQuick = 10;

  int32_t read_long(PacketBits& bits) const;
  void assign(const std::vector<uint8_t>& lengths);
  void add(size_t entry, uint64_t word, unsigned length);

  // Two branches per node: the complement of an entry, or the index of a node; 0 where there is neither.
  std::vector<int32_t> tree_;
  // By the next bits: the entry and, above it, the length of the codeword; 0 for longer codewords.
  std::vector<int32_t> quick_;
};

// Floor of type 1: a piecewise linear curve in decibels that scales the spectrum of a channel.
struct Floor {
  struct Class {
    size_t dimensions;
    unsigned subclass_bits;
    size_t master;
    std::array<int, 8> books;  // -1 for none
  };
  std::vector<Class> classes;
  std::vector<size_t> partitions;
  int multiplier;
  std::vector<int> xs;        // positions of the points, in coding order
  std::vector<size_t> order;  // of `xs`, ascending
  std::vector<size_t> low;    // the nearest neighbors of each point among the points before it
  std::vector<size_t> high;
};

// The spectrum divided by the floor, in partitions whose class selects the codebooks, in up to eight passes.
struct Residue {
  unsigned type;
  size_t begin;
  size_t end;
  size_t partition_size;
  const Codebook* class_book;
  std::vector<std::array<const Codebook*, 8>> books;  // [classes][passes], or nullptr
};

// Channels' floors and residues, and pairs of channels that are stored as magnitude and angle.
struct Mapping {
  struct Coupling {
    size_t magnitude;
    size_t angle;
  };
  std::vector<Coupling> couplings;
  std::vector<size_t> submaps;  // of each channel
  std::vector<const Floor*> floors;
  std::vector<const Residue*> residues;
};

struct Mode {
  bool is_long;
  const Mapping* mapping;
};

struct Setup {
  std::vector<Codebook> books;
  std::vector<Floor> floors;
  std::vector<Residue> residues;
  std::vector<Mapping> mappings;
  std::vector<Mode> modes;
};

// Reads the third packet of a stream (section 4.2.4).
std::unique_ptr<Setup> read_setup(const uint8_t* packet, size_t count, size_t channels);

}  // namespace voxtorch::audio

// Reader of bits that begins at the most significant bit of each byte, as FLAC and MPEG need it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/audio/audio_decoder.h"

namespace voxtorch::audio {

class BitReader {
 public:
  BitReader(const uint8_t* bytes, size_t count, size_t at = 0) : bytes_(bytes), count_(count), at_(at) {}

  // Bits that were read.
  uint64_t position() const { return 8 * static_cast<uint64_t>(at_) - left_; }
  void set_position(uint64_t bits) {
    at_ = static_cast<size_t>(bits >> 3);
    cache_ = 0;
    left_ = 0;
    if ((bits & 7) != 0) read(bits & 7);
  }

  // An unsigned integer of 0 to 32 bits.
  uint32_t read(unsigned count) {
    if (count == 0) return 0;
    if (left_ < count) {
      fill();
      if (left_ < count) throw OutOfBits();
    }
    return take(count);
  }

  // The next 1 to 24 bits without reading them; zeros after the end.
  uint32_t peek(unsigned count) {
    if (left_ < count) fill();
    return static_cast<uint32_t>(cache_ >> (64 - count));
  }
  // Skips bits after peek().
  void pass(unsigned count) {
    if (left_ < count) throw OutOfBits();
    cache_ <<= count;
    left_ -= count;
  }

  // Make the next 32 bits or more available to peek_here() and pass_here(); false near the end of the bytes.
  bool prepare() {
    if (left_ < 32) fill();
    return left_ >= 32;
  }
  // The next 1 to 31 bits of those, unchecked.
  uint32_t peek_here(unsigned count) const { return static_cast<uint32_t>(cache_ >> (64 - count)); }
  void pass_here(unsigned count) {
    cache_ <<= count;
    left_ -= count;
  }

  // A signed integer of 0 to 33 bits in two's complement.
  int64_t read_signed(unsigned count) {
    if (count == 0) return 0;
    if (count == 33) {
      const int64_t sign = read(1);
      return read(32) - (sign << 32);
    }
    const int64_t value = read(count);
    return value >= int64_t{1} << (count - 1) ? value - (int64_t{1} << count) : value;
  }

  // The number of zeros before the next one, which is read too.
  uint64_t read_zeros() {
    uint64_t count = 0;
    for (;;) {
      if (left_ == 0) {
        fill();
        if (left_ == 0) throw OutOfBits();
      }
      const auto leading = static_cast<unsigned>(std::countl_zero(cache_));
      if (leading < left_) {
        cache_ = (cache_ << leading) << 1;
        left_ -= leading + 1;
        return count + leading;
      }
      count += left_;
      cache_ = 0;
      left_ = 0;
    }
  }

  // A Rice code: the quotient in zeros, then `parameter` bits, at most 31.
  uint64_t read_rice(unsigned parameter) {
    if (left_ < 32) fill();
    const auto leading = static_cast<unsigned>(std::countl_zero(cache_));
    if (leading + 1 + parameter <= left_) [[likely]] {
      const uint64_t rest = (cache_ << leading) << 1;
      cache_ = rest << parameter;
      left_ -= leading + 1 + parameter;
      // Two shifts, because one by 64 bits is undefined.
      return (static_cast<uint64_t>(leading) << parameter) | ((rest >> 1) >> (63 - parameter));
    }
    const uint64_t high = read_zeros();
    return (high << parameter) + read(parameter);
  }

  // Skips to the beginning of a byte.
  void align() {
    const unsigned rest = left_ & 7;
    cache_ <<= rest;
    left_ -= rest;
  }

 private:
  uint32_t take(unsigned count) {
    const auto value = static_cast<uint32_t>(cache_ >> (64 - count));
    cache_ <<= count;
    left_ -= count;
    return value;
  }

  void fill() {
    if (at_ + 8 <= count_) [[likely]] {
      uint64_t word;
      std::memcpy(&word, bytes_ + at_, 8);
      if constexpr (std::endian::native == std::endian::little) word = __builtin_bswap64(word);
      // At most 56 bits are left where this is called. Bits of the last byte that do not count yet are read again.
      cache_ |= word >> left_;
      const unsigned bytes = (64 - left_) / 8;
      at_ += bytes;
      left_ += 8 * bytes;
      return;
    }
    for (; left_ <= 56 && at_ < count_; left_ += 8) cache_ |= static_cast<uint64_t>(bytes_[at_++]) << (56 - left_);
  }

  const uint8_t* bytes_;
  size_t count_;
  size_t at_;           // the next byte that goes into the cache
  uint64_t cache_ = 0;  // the next bits, the first of them the most significant
  unsigned left_ = 0;
};

}  // namespace voxtorch::audio

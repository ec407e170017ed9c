// Checksums whose polynomial is written from its highest power on (FLAC, Ogg), eight bytes at a time.
#pragma once

#include <array>
#include <climits>
#include <cstddef>
#include <cstdint>

namespace voxtorch::audio {

template <typename Sum, uint32_t kPolynomial>
class Checksum {
 public:
  constexpr Checksum() {
    constexpr int kShift = kBits - 8;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      auto sum = static_cast<Sum>(byte << kShift);
      for (int bit = 0; bit < 8; ++bit) {
        const bool carry = ((sum >> (kBits - 1)) & 1) != 0;
        sum = static_cast<Sum>(static_cast<Sum>(sum << 1) ^ (carry ? kPolynomial : 0));
      }
      tables_[0][byte] = sum;
    }
    // tables_[k][b]: what byte b adds when k more bytes follow it.
    for (size_t k = 1; k < kStep; ++k) {
      for (size_t byte = 0; byte < 256; ++byte) tables_[k][byte] = after(tables_[k - 1][byte], 0);
    }
  }

  constexpr Sum add(Sum sum, const uint8_t* at, size_t count) const {
    for (; count >= kStep; at += kStep, count -= kStep) {
      Sum next = 0;
      for (size_t k = 0; k < kStep; ++k) {
        uint8_t byte = at[k];
        if (k < sizeof(Sum)) byte ^= static_cast<uint8_t>(sum >> (kBits - 8 - 8 * static_cast<int>(k)));
        next ^= tables_[kStep - 1 - k][byte];
      }
      sum = next;
    }
    for (; count > 0; ++at, --count) sum = after(sum, *at);
    return sum;
  }

 private:
  static constexpr int kBits = CHAR_BIT * sizeof(Sum);
  static constexpr size_t kStep = 8;

  constexpr Sum after(Sum sum, uint8_t byte) const {
    const auto index = static_cast<uint8_t>(static_cast<uint8_t>(sum >> (kBits - 8)) ^ byte);
    return static_cast<Sum>((kBits > 8 ? static_cast<uint64_t>(sum) << 8 : 0) ^ tables_[0][index]);
  }

  std::array<std::array<Sum, 256>, kStep> tables_{};
};

}  // namespace voxtorch::audio

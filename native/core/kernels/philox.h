// Philox4x32 with seven rounds: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (2011),
// https://doi.org/10.1145/2063384.2063405. Four random words are a function of a counter and a key and of nothing else,
// so a backward draws what its forward drew, in any order and on any device. Internal to each file that includes it, as
// row_blocks.h is.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define VOXTORCH_HOST_DEVICE __host__ __device__
#else
#define VOXTORCH_HOST_DEVICE
#endif

namespace voxtorch::kernels {
namespace {

constexpr int kPhiloxRounds = 7;
constexpr uint32_t kPhiloxFirst = 0xD2511F53u;
constexpr uint32_t kPhiloxSecond = 0xCD9E8D57u;
constexpr uint32_t kPhiloxLow = 0x9E3779B9u;
constexpr uint32_t kPhiloxHigh = 0xBB67AE85u;

struct PhiloxWords {
  uint32_t word[4];
};

VOXTORCH_HOST_DEVICE inline PhiloxWords philox(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint64_t key) {
  uint32_t key_low = static_cast<uint32_t>(key);
  uint32_t key_high = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t first = static_cast<uint64_t>(kPhiloxFirst) * a;
    const uint64_t second = static_cast<uint64_t>(kPhiloxSecond) * c;
    a = static_cast<uint32_t>(second >> 32) ^ b ^ key_low;
    b = static_cast<uint32_t>(second);
    c = static_cast<uint32_t>(first >> 32) ^ d ^ key_high;
    d = static_cast<uint32_t>(first);
    key_low += kPhiloxLow;
    key_high += kPhiloxHigh;
  }
  return {{a, b, c, d}};
}

}  // namespace
}  // namespace voxtorch::kernels

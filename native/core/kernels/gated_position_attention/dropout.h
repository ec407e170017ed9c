// Which probabilities gated_position_attention drops, one element at a time. That of query i and key j in row `head` of
// batch * heads is kept where one word of Philox is at least the threshold. Sixteen neighboring keys are sixteen
// counters, and each counter's four words serve the keys j, j + 16, j + 32 and j + 48 of a group of 64, so that neither
// vector code nor a tile of threads has to move words between lanes. Internal to each file that includes it, as
// row_blocks.h is.
#pragma once

#include <cstdint>

#include "core/kernels/gated_position_attention/args.h"

#if defined(__CUDACC__)
#define VOXTORCH_HOST_DEVICE __host__ __device__
#else
#define VOXTORCH_HOST_DEVICE
#endif

namespace voxtorch::kernels {
namespace {

// Philox4x32 with seven rounds: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (2011),
// https://doi.org/10.1145/2063384.2063405. Four random words are a function of a counter and a key and of nothing else,
// so a backward draws what its forward drew, in any order and on any device.
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

VOXTORCH_HOST_DEVICE inline uint32_t dropout_counter(int64_t key) {
  return static_cast<uint32_t>(key / 64 * 16 + key % 16);
}
VOXTORCH_HOST_DEVICE inline int dropout_word(int64_t key) { return static_cast<int>(key / 16 % 4); }

VOXTORCH_HOST_DEVICE inline PhiloxWords dropout_words(const AttentionDropout& dropout, uint32_t head, uint32_t query,
                                                      uint32_t counter) {
  return philox(counter, query, head, 0, dropout.seed);
}

// Chosen, not indexed: words that are indexed by what is known only when it runs lie in memory on a GPU, not in
// registers.
VOXTORCH_HOST_DEVICE inline uint32_t chosen_word(const PhiloxWords& words, int index) {
  const uint32_t low = index % 2 == 0 ? words.word[0] : words.word[1];
  const uint32_t high = index % 2 == 0 ? words.word[2] : words.word[3];
  return index / 2 == 0 ? low : high;
}

VOXTORCH_HOST_DEVICE inline bool keeps(const AttentionDropout& dropout, int64_t head, int64_t query, int64_t key) {
  const PhiloxWords words =
      dropout_words(dropout, static_cast<uint32_t>(head), static_cast<uint32_t>(query), dropout_counter(key));
  return chosen_word(words, dropout_word(key)) >= dropout.threshold;
}

}  // namespace
}  // namespace voxtorch::kernels

// Which probabilities gated_position_attention drops, one element at a time. That of query i and key j in row `head` of
// batch * heads is kept where one word of Philox is at least the threshold. Sixteen neighboring keys are sixteen
// counters, and each counter's four words serve the keys j, j + 16, j + 32 and j + 48 of a group of 64, so that neither
// vector code nor a tile of threads has to move words between lanes.
#pragma once

#include "core/kernels/gated_position_attention/args.h"
#include "core/kernels/philox.h"

namespace voxtorch::kernels {
namespace {

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

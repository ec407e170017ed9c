// How tokens are chosen: transformers' GenerationConfig, with its names.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "core/config.h"

namespace voxtorch::generation {

using Ids = std::vector<int64_t>;

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

struct Biased {
  Ids ids;
  double bias;
};

enum class EarlyStopping { kNo, kYes, kNever };

struct Options {
  // `biases`: those of sequence_bias, in its order.
  Options(const Config& config, const std::vector<double>& biases);

  bool sample;
  int64_t beams, returned;         // num_return_sequences
  int64_t max_new_tokens;          // for each row
  int64_t max_length, min_length;  // columns, the prompt included; max_length counts where max_new_tokens is below 0
  int64_t min_new_tokens;
  Ids eos;
  int64_t pad;
  std::vector<Ids> stop_sequences;

  std::vector<Biased> sequence_bias;
  double repetition_penalty;
  int64_t no_repeat_ngram;
  std::vector<Ids> bad_words;
  std::optional<Ids> allowed;  // at every step
  std::vector<Ids> allowed_sequences;
  int64_t forced_bos;  // -1: none
  Ids forced_eos;
  bool remove_invalid;
  int64_t decay_start;  // of exponential_decay_length_penalty; -1: none
  double decay_factor;
  Ids suppressed, begin_suppressed;
  int64_t no_timestamps;          // Whisper's rules of timestamps, which are the tokens above this one; -1: none
  int64_t last_timestamp;         // tokens above it are text; -1: there are none
  int64_t max_initial_timestamp;  // -1: none

  double temperature, top_h, top_p, min_p, typical_p, epsilon, eta;  // each a value that changes nothing if not wanted
  int64_t top_k;
  bool renormalize;

  double length_penalty;
  EarlyStopping early_stopping;

  double guidance;               // classifier-free; 1: none
  int64_t drafted;               // tokens that an assistant guesses at once
  double draft_confidence;       // its draft ends with a token that is less likely
  int64_t lookup, lookup_ngram;  // tokens that are taken from the text itself, after so many that match; 0: none

  bool keep_scores, keep_logits, keep_logprobs;
};

}  // namespace voxtorch::generation

#include "core/generation/options.h"

#include <c10/util/Exception.h>

#include <algorithm>

namespace voxtorch::generation {
namespace {

// Lists of lists come as one list and the lengths of its parts.
std::vector<Ids> lists(const Config& config, const std::string& key) {
  const Ids all = config.integers(key, {});
  std::vector<Ids> result;
  size_t at = 0;
  for (const int64_t length : config.integers(key + "_lengths", {})) {
    TORCH_CHECK_VALUE(length > 0 && static_cast<size_t>(length) <= all.size() - at, key, " has a list without tokens");
    result.emplace_back(all.begin() + static_cast<int64_t>(at), all.begin() + static_cast<int64_t>(at) + length);
    at += static_cast<size_t>(length);
  }
  return result;
}

std::vector<Biased> biased(const Config& config, const std::vector<double>& biases) {
  std::vector<Ids> sequences = lists(config, "sequence_bias");
  TORCH_CHECK_VALUE(sequences.size() == biases.size(), "sequence_bias has ", sequences.size(), " sequences and ",
                    biases.size(), " biases");
  std::vector<Biased> result;
  for (size_t i = 0; i < sequences.size(); ++i) result.push_back({std::move(sequences[i]), biases[i]});
  return result;
}

EarlyStopping early_stopping_of(const std::string& word) {
  if (word == "never") return EarlyStopping::kNever;
  return word == "true" ? EarlyStopping::kYes : EarlyStopping::kNo;
}

}  // namespace

Options::Options(const Config& config, const std::vector<double>& biases)
    : sample(config.boolean("do_sample", false)),
      beams(config.integer("num_beams", 1)),
      returned(config.integer("num_return_sequences", 1)),
      max_new_tokens(config.integer("max_new_tokens", -1)),
      max_length(config.integer("max_length", 20)),
      min_length(config.integer("min_length", 0)),
      min_new_tokens(config.integer("min_new_tokens", 0)),
      eos(config.integers("eos_token_id", {})),
      pad(config.integer("pad_token_id", 0)),
      stop_sequences(lists(config, "stop_sequences")),
      sequence_bias(biased(config, biases)),
      repetition_penalty(config.number("repetition_penalty", 1)),
      no_repeat_ngram(config.integer("no_repeat_ngram_size", 0)),
      bad_words(lists(config, "bad_words_ids")),
      allowed_sequences(lists(config, "allowed_sequences")),
      forced_bos(config.integer("forced_bos_token_id", -1)),
      forced_eos(config.integers("forced_eos_token_id", {})),
      remove_invalid(config.boolean("remove_invalid_values", false)),
      decay_start(config.integer("decay_start", -1)),
      decay_factor(config.number("decay_factor", 1)),
      suppressed(config.integers("suppress_tokens", {})),
      begin_suppressed(config.integers("begin_suppress_tokens", {})),
      no_timestamps(config.boolean("return_timestamps", false) ? config.integer("no_timestamps_token_id") : -1),
      last_timestamp(config.integer("last_timestamp_token_id", -1)),
      max_initial_timestamp(config.integer("max_initial_timestamp_index", -1)),
      temperature(config.number("temperature", 1)),
      top_h(config.number("top_h", -1)),
      top_p(config.number("top_p", 1)),
      min_p(config.number("min_p", 0)),
      typical_p(config.number("typical_p", 1)),
      epsilon(config.number("epsilon_cutoff", 0)),
      eta(config.number("eta_cutoff", 0)),
      top_k(config.integer("top_k", 0)),
      renormalize(config.boolean("renormalize_logits", false)),
      length_penalty(config.number("length_penalty", 1)),
      early_stopping(early_stopping_of(config.text("early_stopping", "false"))),
      guidance(config.number("guidance_scale", 1)),
      drafted(config.integer("num_assistant_tokens", 20)),
      draft_confidence(config.number("assistant_confidence_threshold", 0.4)),
      lookup(config.integer("prompt_lookup_num_tokens", 0)),
      lookup_ngram(config.integer("max_matching_ngram_size", 2)),
      keep_scores(config.boolean("output_scores", false)),
      keep_logits(config.boolean("output_logits", false)),
      keep_logprobs(config.boolean("output_logprobs", false)) {
  TORCH_CHECK_VALUE(beams >= 1 && returned >= 1 && (beams == 1 || returned <= beams),
                    "num_return_sequences must be from 1 to num_beams");
  TORCH_CHECK_VALUE(temperature > 0 && repetition_penalty > 0, "temperature and repetition_penalty must be above 0");
  TORCH_CHECK_VALUE(drafted >= 1 && lookup >= 0 && lookup_ngram >= 1,
                    "num_assistant_tokens and max_matching_ngram_size must be above 0");
  if (config.has("allowed_tokens")) allowed = config.integers("allowed_tokens", {});
  // transformers forbids no end of the text as a bad word.
  std::erase_if(bad_words, [this](const Ids& word) {
    return word.size() == 1 && std::find(eos.begin(), eos.end(), word[0]) != eos.end();
  });
}

}  // namespace voxtorch::generation

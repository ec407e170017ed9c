#include "core/generation/processors.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

namespace voxtorch::generation {
namespace {

void check_ids(const Ids& ids, int64_t vocabulary, const char* where) {
  for (const int64_t id : ids) {
    TORCH_CHECK_VALUE(id >= 0 && id < vocabulary, where, " has the token ", id, ", but there are ", vocabulary);
  }
}

void forbid(const Ids& ids, float* scores) {
  for (const int64_t id : ids) scores[id] = kForbidden;
}

// Whether the text ends with all of the sequence but its last token.
bool about_to_write(const Ids& text, const Ids& sequence) {
  const size_t before = sequence.size() - 1;
  return before <= text.size() &&
         std::equal(sequence.begin(), sequence.end() - 1, text.end() - static_cast<int64_t>(before));
}

}  // namespace

PrefixTree::PrefixTree(const std::vector<Ids>& sequences) : nodes_(1) {
  for (const Ids& sequence : sequences) {
    size_t at = 0;
    for (const int64_t id : sequence) {
      const auto [place, fresh] = nodes_[at].next.emplace(id, nodes_.size());
      at = place->second;
      if (fresh) nodes_.emplace_back();
    }
    nodes_[at].whole = true;
  }
}

Ids PrefixTree::following(const Ids& text, size_t from, const Ids& ends) const {
  size_t at = 0;
  for (size_t i = from; i < text.size(); ++i) {
    const auto found = nodes_[at].next.find(text[i]);
    if (found == nodes_[at].next.end()) return ends;
    at = found->second;
  }
  Ids result;
  for (const auto& [id, node] : nodes_[at].next) result.push_back(id);
  if (nodes_[at].whole) result.insert(result.end(), ends.begin(), ends.end());
  return result;
}

LogitsProcessors::LogitsProcessors(const Options& o, int64_t vocabulary)
    : options_(o), vocabulary_(vocabulary), tree_(o.allowed_sequences) {
  check_ids(o.eos, vocabulary, "eos_token_id");
  check_ids({o.pad}, vocabulary, "pad_token_id");
  check_ids(o.forced_eos, vocabulary, "forced_eos_token_id");
  if (o.forced_bos >= 0) check_ids({o.forced_bos}, vocabulary, "forced_bos_token_id");
  check_ids(o.suppressed, vocabulary, "suppress_tokens");
  check_ids(o.begin_suppressed, vocabulary, "begin_suppress_tokens");
  if (o.no_timestamps >= 0) {
    check_ids({o.no_timestamps}, vocabulary, "no_timestamps_token_id");
    TORCH_CHECK_VALUE(!o.eos.empty(), "return_timestamps needs an eos_token_id, below which text is");
    if (o.last_timestamp >= 0) {
      check_ids({o.last_timestamp}, vocabulary, "last_timestamp_token_id");
      TORCH_CHECK_VALUE(o.last_timestamp > o.no_timestamps, "last_timestamp_token_id: expected an id above ",
                        "no_timestamps_token_id ", o.no_timestamps, ", got ", o.last_timestamp);
    }
  }
  if (o.allowed) check_ids(*o.allowed, vocabulary, "allowed_tokens");
  for (const Ids& word : o.bad_words) check_ids(word, vocabulary, "bad_words_ids");
  for (const Ids& sequence : o.allowed_sequences) check_ids(sequence, vocabulary, "allowed_sequences");
  for (const Biased& one : o.sequence_bias) check_ids(one.ids, vocabulary, "sequence_bias");
  before_ = !o.sequence_bias.empty() || o.repetition_penalty != 1 || o.no_repeat_ngram > 0 || !o.bad_words.empty() ||
            ((o.min_length > 0 || o.min_new_tokens > 0) && !o.eos.empty());
  constrained_ = o.allowed.has_value() || !tree_.empty();
  after_ = o.forced_bos >= 0 || !o.forced_eos.empty() || o.remove_invalid || o.decay_start >= 0 ||
           !o.suppressed.empty() || !o.begin_suppressed.empty() || o.no_timestamps >= 0;
}

void LogitsProcessors::before(const Written& written, float* scores) {
  if (!before_) return;
  for (const auto& [ids, bias] : options_.sequence_bias) {
    if (about_to_write(written.ids, ids)) scores[ids.back()] += static_cast<float>(bias);
  }
  if (options_.repetition_penalty != 1) penalise_repetition(written, scores);
  if (options_.no_repeat_ngram > 0) forbid_repeated_ngrams(written, scores);
  for (const Ids& word : options_.bad_words) {
    if (about_to_write(written.ids, word)) scores[word.back()] = kForbidden;
  }
  if (written.columns() < options_.min_length || written.generated < options_.min_new_tokens) {
    forbid(options_.eos, scores);
  }
}

// CTRL (Keskar et al. 2019, https://arxiv.org/abs/1909.05858).
void LogitsProcessors::penalise_repetition(const Written& written, float* scores) {
  const auto penalty = static_cast<float>(options_.repetition_penalty);
  seen_.resize(static_cast<size_t>(vocabulary_), 0);
  for (const int64_t id : written.ids) {
    if (id < 0 || id >= vocabulary_ || seen_[static_cast<size_t>(id)] != 0) continue;
    seen_[static_cast<size_t>(id)] = 1;
    scores[id] = scores[id] < 0 ? scores[id] * penalty : scores[id] / penalty;
  }
  for (const int64_t id : written.ids) {
    if (id >= 0 && id < vocabulary_) seen_[static_cast<size_t>(id)] = 0;
  }
}

void LogitsProcessors::forbid_repeated_ngrams(const Written& written, float* scores) const {
  const auto before = static_cast<size_t>(options_.no_repeat_ngram - 1);
  const Ids& ids = written.ids;
  if (ids.size() <= before) return;
  const auto tail = ids.end() - static_cast<int64_t>(before);
  for (size_t i = 0; i + before < ids.size(); ++i) {
    const int64_t next = ids[i + before];
    if (next >= 0 && next < vocabulary_ && std::equal(tail, ids.end(), ids.begin() + static_cast<int64_t>(i))) {
      scores[next] = kForbidden;
    }
  }
}

Ids LogitsProcessors::allowed_next(const Written& written, const Ids* given) const {
  std::vector<Ids> sets;
  if (options_.allowed) sets.push_back(*options_.allowed);
  if (!tree_.empty()) {
    const size_t from = written.ids.size() - static_cast<size_t>(written.generated);
    sets.push_back(tree_.following(written.ids, from, options_.eos));
  }
  if (given != nullptr) {
    check_ids(*given, vocabulary_, "the set of allowed tokens");
    sets.push_back(*given);
  }
  Ids result = std::move(sets.front());
  std::sort(result.begin(), result.end());
  for (size_t i = 1; i < sets.size(); ++i) {
    std::sort(sets[i].begin(), sets[i].end());
    Ids both;
    std::set_intersection(result.begin(), result.end(), sets[i].begin(), sets[i].end(), std::back_inserter(both));
    result = std::move(both);
  }
  TORCH_CHECK_VALUE(!result.empty(), "the constraints allow no token at step ", written.generated + 1);
  return result;
}

void LogitsProcessors::constrain(const Written& written, const Ids* given, float* scores) {
  int64_t from = 0;
  for (const int64_t id : allowed_next(written, given)) {
    std::fill(scores + from, scores + std::max(from, id), kForbidden);
    from = id + 1;
  }
  std::fill(scores + std::min(from, vocabulary_), scores + vocabulary_, kForbidden);
}

void LogitsProcessors::release(const Written& written, const Ids* given, float* scores) {
  for (const int64_t id : allowed_next(written, given)) scores[id] = 0;
}

void LogitsProcessors::after(const Written& written, float* scores) const {
  if (!after_) return;
  const Options& o = options_;
  const auto only = [&](const Ids& ids) {
    std::fill(scores, scores + vocabulary_, kForbidden);
    for (const int64_t id : ids) scores[id] = 0;
  };
  const int64_t columns = written.columns();
  if (o.forced_bos >= 0 && columns == 1) only({o.forced_bos});
  const int64_t longest = o.max_new_tokens >= 0 ? written.prompt_columns + o.max_new_tokens : o.max_length;
  if (!o.forced_eos.empty() && columns == longest - 1) only(o.forced_eos);
  if (o.remove_invalid) {
    for (int64_t i = 0; i < vocabulary_; ++i) {
      constexpr float most = std::numeric_limits<float>::max();
      scores[i] = std::isnan(scores[i]) ? 0 : std::clamp(scores[i], -most, most);
    }
  }
  if (o.decay_start >= 0 && written.generated > o.decay_start) {
    const auto factor = static_cast<float>(std::pow(o.decay_factor, written.generated - o.decay_start) - 1);
    for (const int64_t id : o.eos) {
      if (std::isfinite(scores[id])) scores[id] += std::abs(scores[id]) * factor;
    }
  }
  forbid(o.suppressed, scores);
  const int64_t begin = written.prompt_columns > 1 || o.forced_bos < 0 ? 0 : 1;
  if (written.generated == begin) forbid(o.begin_suppressed, scores);
  if (o.no_timestamps >= 0) keep_timestamp_rules(written, scores);
}

// Whisper's (Radford et al. 2022, https://arxiv.org/abs/2212.04356): timestamps come in pairs but for the first and the
// one before the end, never go back, and one comes where all of them together are more likely than any other token.
// Tokens above the timestamps, which fine-tuning added, are text; transformers takes them for timestamps.
void LogitsProcessors::keep_timestamp_rules(const Written& written, float* scores) const {
  const Options& o = options_;
  const int64_t first = o.no_timestamps + 1;
  const int64_t end = o.last_timestamp >= 0 ? o.last_timestamp + 1 : vocabulary_;
  const auto is_timestamp = [&](int64_t id) { return id >= first && id < end; };
  const auto forbid_range = [&](int64_t from, int64_t to) {
    if (from < to) std::fill(scores + from, scores + to, kForbidden);
  };
  const auto forbid_text = [&](int64_t below) {
    forbid_range(0, below);
    forbid_range(end, vocabulary_);
  };
  scores[o.no_timestamps] = kForbidden;
  const auto answer = written.ids.end() - written.generated;
  const auto was_timestamp = [&](int64_t back) { return is_timestamp(*(written.ids.end() - back)); };
  const bool last = written.generated >= 1 && was_timestamp(1);
  const bool before = written.generated < 2 || was_timestamp(2);
  if (last && before) forbid_range(first, end);
  if (last && !before) forbid_text(o.eos.front());
  const auto none = std::make_reverse_iterator(answer);
  const auto latest = std::find_if(written.ids.rbegin(), none, is_timestamp);
  // A pair may be at one moment, but not two.
  if (latest != none) forbid_range(first, std::min(end, *latest + (last && !before ? 0 : 1)));
  if (written.generated == 0) {
    forbid_text(first);
    if (o.max_initial_timestamp >= 0) forbid_range(first + o.max_initial_timestamp + 1, end);
  }
  if (first == end) return;
  const float best_time = *std::max_element(scores + first, scores + end);
  const float best_text =
      std::max(*std::max_element(scores, scores + first),
               end < vocabulary_ ? *std::max_element(scores + end, scores + vocabulary_) : kForbidden);
  if (best_time == kForbidden) return;
  double sum = 0;
  for (int64_t i = first; i < end; ++i) sum += std::exp(static_cast<double>(scores[i] - best_time));
  if (best_time + std::log(sum) > best_text) forbid_text(first);
}

}  // namespace voxtorch::generation

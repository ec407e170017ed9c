// What changes the scores of the next token before one is chosen, in transformers' order: a row of scores at a time,
// float32 in CPU memory, in place.
#pragma once

#include <map>

#include "core/generation/options.h"

namespace voxtorch::generation {

// What a row has read and written so far.
struct Written {
  const Ids& ids;          // without the padding on the left
  int64_t generated;       // how many of the last of them were generated
  int64_t prompt_columns;  // what counts as the prompt's length: its padding too
  int64_t columns() const { return prompt_columns + generated; }
};

// A tree of token sequences: what may follow what was written, so that the answer is one of them.
class PrefixTree {
 public:
  explicit PrefixTree(const std::vector<Ids>& sequences);
  bool empty() const { return nodes_.front().next.empty(); }
  // The tokens that may follow text[from...]; `ends` are those that may follow a whole sequence.
  Ids following(const Ids& text, size_t from, const Ids& ends) const;

 private:
  struct Node {
    std::map<int64_t, size_t> next;
    bool whole = false;
  };
  std::vector<Node> nodes_;
};

class LogitsProcessors {
 public:
  LogitsProcessors(const Options& options, int64_t vocabulary);

  bool empty() const { return !before_ && !constrained_ && !after_; }
  // What comes before the constraint: biases, penalties, repeated n-grams, bad words, minimal lengths.
  void before(const Written& written, float* scores);
  // Forbids what the options' constraints, and `given` (or null), do not allow.
  bool constrains(const Ids* given) const { return constrained_ || given != nullptr; }
  void constrain(const Written& written, const Ids* given, float* scores);
  // Where nothing that is allowed had a score: all of it is as likely.
  void release(const Written& written, const Ids* given, float* scores);
  // What comes after it: forced and suppressed tokens, the decaying length penalty, Whisper's timestamps.
  void after(const Written& written, float* scores) const;

 private:
  Ids allowed_next(const Written& written, const Ids* given) const;
  void penalise_repetition(const Written& written, float* scores);
  void keep_timestamp_rules(const Written& written, float* scores) const;
  void forbid_repeated_ngrams(const Written& written, float* scores) const;

  const Options& options_;
  const int64_t vocabulary_;
  const PrefixTree tree_;
  bool before_, constrained_, after_;
  std::vector<uint8_t> seen_;  // all 0 between calls
};

}  // namespace voxtorch::generation

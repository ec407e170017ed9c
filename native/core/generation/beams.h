// Beam search with transformers' rules: candidates, what counts as finished, when it ends.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "core/generation/options.h"

namespace voxtorch::generation {

enum class End : int64_t { kNone = 0, kToken = 1, kStopSequence = 2, kLength = 3 };

struct Beam {
  Ids ids;  // prompt and answer
  int64_t generated = 0;
  float score = 0;  // sum of log probabilities; of a finished one divided by its length to the power of the penalty
  std::vector<float> logprobs;
  End end = End::kNone;
};

// The beams of all prompts.
class BeamSearch {
 public:
  // `ends`: whether a beam ends with its last token. `draws`: that many uniform numbers for a prompt, while sampling.
  using Ends = std::function<End(const Beam&)>;
  using Draws = std::function<std::vector<double>(int64_t prompt, int64_t count)>;

  BeamSearch(const Options& options, const std::vector<Ids>& prompts, int64_t longest);

  // Goes on by one token: scores [prompts * beams, vocabulary], float32 log probabilities on the CPU.
  // -> for each running beam the row that it continues.
  Ids advance(const at::Tensor& scores, const Ends& ends, const Draws& draws);

  bool done() const { return done_; }
  const Beam& running(int64_t row) const {
    return prompts_[static_cast<size_t>(row / beams_)].running[static_cast<size_t>(row % beams_)];
  }
  int64_t rows() const { return static_cast<int64_t>(prompts_.size()) * beams_; }
  // The finished beams of a prompt, the best first; before the search is over also those that still run, as they are.
  std::vector<Beam> results(int64_t prompt) const;

 private:
  struct Prompt {
    std::vector<Beam> running, finished;  // finished: the best first
    bool improvable = true;
  };
  struct Candidate {
    float score;
    int64_t beam, id;
  };

  std::vector<Candidate> candidates(const at::Tensor& totals, int64_t prompt, int64_t vocabulary,
                                    const Draws& draws) const;
  void finish(Prompt& prompt, std::vector<Beam>& candidates) const;
  bool can_improve(const Prompt& prompt) const;
  bool full(const Prompt& prompt) const { return static_cast<int64_t>(prompt.finished.size()) == beams_; }

  const Options& options_;
  const int64_t beams_, kept_, longest_;  // candidates kept for each prompt; the most tokens of an answer
  int64_t generated_ = 0;
  bool done_ = false;
  std::vector<Prompt> prompts_;
};

}  // namespace voxtorch::generation

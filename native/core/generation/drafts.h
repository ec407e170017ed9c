// Guesses at a text's next tokens, which the network then reads in one pass instead of one by one: it keeps those that
// it would have chosen itself.
#pragma once

#include <functional>
#include <memory>

#include "core/generation/sampling.h"
#include "core/generation/stepper.h"

namespace voxtorch::generation {

struct Draft {
  Ids ids;
  std::vector<Choice> from;  // what each was drawn from; empty: they were not drawn
};

class Drafter {
 public:
  virtual ~Drafter() = default;
  // At most so many tokens after a text; may be none.
  virtual Draft draft(const Ids& text, int64_t most) = 0;
};

struct AssistantRules {
  // Changes the scores of what follows a text, of whose tokens the last `guessed` are guesses.
  std::function<void(const Ids& text, int64_t guessed, float* scores)> process;
  std::function<double()> uniform;  // a draw; null: the most likely token is taken
  Ids eos;
  double confidence = 0;  // the draft ends with a token that is less likely
  int64_t longest = 0;    // tokens that the text may have in the end
};

// A smaller network's guesses (Leviathan et al. 2022, https://arxiv.org/abs/2211.17192).
std::unique_ptr<Drafter> assistant_drafter(std::unique_ptr<CausalStepper> stepper, int64_t vocabulary, Prompt audio,
                                           AssistantRules rules);

// What stood after the text's last tokens before, up to `ngram` of them.
std::unique_ptr<Drafter> lookup_drafter(int64_t ngram);

// Takes a guess that was drawn from `guessed` as often as `wanted` allows, and else draws what is missing: the token is
// distributed as `wanted`.
int64_t accept_or_draw(int64_t guess, const Choice& guessed, const Choice& wanted,
                       const std::function<double()>& uniform);

}  // namespace voxtorch::generation

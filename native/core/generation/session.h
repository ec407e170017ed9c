// A generation under way. Each job on the executor is one token of all rows that are still being written, so that two
// sessions take turns, and whoever gives up waits for one token at most.
#pragma once

#include <ATen/core/Generator.h>

#include <atomic>
#include <mutex>

#include "core/block.h"
#include "core/generation/beams.h"
#include "core/generation/drafts.h"
#include "core/generation/processors.h"
#include "core/generation/stepper.h"

namespace voxtorch::generation {

struct Start {
  Prompt prompt;
  at::Tensor context;  // int64 [batch, any]: what the processors take for the beginning of the text; may be undefined
  c10::intrusive_ptr<nn::KvCache> cache;
  at::Tensor prefix_keys;  // int64 [1, time], with embeddings in a batch: positions with one key have one embedding
  std::optional<at::Generator> generator;
  at::Tensor uniforms;  // the draws, in place of a generator's: [steps, rows], with beams [steps, prompts, candidates]
  at::Tensor negative_ids;   // int64 [batch, any]: what guidance leads away from; undefined: each row's last token
  at::Tensor negative_mask;  // [batch, any], 1 for real tokens; undefined: all are
  c10::intrusive_ptr<Module> assistant;  // guesses at what this network will write; null: none
  at::Tensor assistant_states;           // encoder states of the assistant, with cross-attention
  Ids limits;                            // most new tokens of each prompt; empty: those of the options
};

// What a step has added.
struct Added {
  Ids ids;   // of each row; padding for those that had ended
  Ids ends;  // End of each row
  std::vector<double> logprobs;
  bool done = false;
};

// For each row the tokens that may follow; null: all.
using Allowed = std::vector<Ids>;

// Where JavaScript looks into a generation: its hook sees an input and gives what goes on as the output.
class Callback : public Block {
 public:
  Callback(const ModuleOptions& options, const char* kind) : Block(kind, options) {}
};

class Session : public Module {
 public:
  Session(const Config& config, const std::vector<double>& biases);
  ~Session() override;

  // Reads the prompt and chooses the first token.
  Added begin(const c10::intrusive_ptr<Module>& network, const Start& start, const Allowed* allowed);
  Added step(const Allowed* allowed);
  // Whatever is queued after this is refused. From any thread.
  void cancel() { cancelled_ = true; }
  bool cancelled() const { return cancelled_; }

  // In place of begin and step, for a batch, which reads for several sessions at once: takes the prompt and reads
  // nothing of it yet.
  void open(const c10::intrusive_ptr<Module>& network, const Start& start);
  // Tokens of the prompt that are still to be read.
  int64_t unread() const;
  // What to read next: of the prompt, at most so many tokens, else the token that was chosen last.
  Piece piece(int64_t most) const;
  // What piece() gave was read; `logits` [1, vocabulary] of what follows, undefined while there is more of the prompt.
  // True where a token is to be chosen.
  bool has_read(int64_t tokens, const at::Tensor& logits);
  Added choose_next(const Allowed* allowed);
  // Logits after the token that was chosen last, as a session that is in no batch computes them.
  at::Tensor read_alone();
  // The prompt's ids, or the keys of its embeddings, if they determine it; and those of what is in the cache.
  const Ids* prompt() const { return prompt_keys_ ? &*prompt_keys_ : nullptr; }
  Ids in_cache() const;
  nn::KvCache& cache() const { return *cache_; }
  // The first tokens of the prompt are in the cache already.
  void skip(int64_t tokens);
  // Of a session that is over.
  c10::intrusive_ptr<nn::KvCache> take_cache() { return std::move(cache_); }
  // What each row has written: the running beams' texts too.
  std::vector<Ids> written() const;

  struct Result {
    at::Tensor sequences;               // int64 [results, prompt + longest answer]
    Ids lengths, ends;                  // of each answer
    at::Tensor sequences_scores;        // [results], with beams
    at::Tensor logprobs;                // [results, longest answer], 0 after the end
    at::Tensor scores, logits;          // [steps, rows, vocabulary]
    at::Tensor attention_mask;          // [rows, cache length]: what of the cache is real
    int64_t drafted = 0, accepted = 0;  // tokens that were guessed, and those of them that were taken
    at::Tensor prompt_logits;  // float32 [prompts, vocabulary], after the token of the prompt that was asked for
  };
  Result result() const;

 private:
  struct Row {
    Ids ids;  // context, prompt without padding, and what was generated
    int64_t generated = 0;
    int64_t limit = 0;
    std::vector<float> logprobs;
    End end = End::kNone;
  };

  void check_usable() const;
  void prepare(const c10::intrusive_ptr<Module>& network, const Start& start);
  static Ids values_of(const at::Tensor& ids);  // on any device
  // Everything about the prompt but reading it; the most tokens that will follow.
  int64_t take_prompt(const Start& start);
  void read(const Start& start, const Generative& network);
  Added choose(const Allowed* allowed);
  Added choose_tokens(const Allowed* allowed);
  Added choose_beams(const Allowed* allowed);
  // Scores of the rows of logits_, float32 on the CPU; each belongs to the row that row_of tells.
  void process(const at::Tensor& scores, const std::vector<size_t>& row_of, const Allowed* allowed);
  Written written_of(size_t row) const;
  double uniform(int64_t row, int64_t place);
  End end_of(const Ids& ids, int64_t generated, int64_t limit) const;
  void drop_ended();
  // What follows `best`, the device's choice of each active row, is computed while the host still waits for it.
  void read_ahead(const at::Tensor& best);
  void take_ahead();
  void read_negative(const Start& start, const Generative& network, int64_t longest, int64_t copies);
  void prepare_drafts(const Start& start, int64_t longest);
  at::Tensor next_logits();
  // Whether the largest of the logits is all that the next choice asks for.
  bool is_plain(const Allowed* allowed) const;
  void forget_guesses();
  // Whether logits that were read ahead leave it to rounding which of the best two comes.
  bool is_near_tie(const at::Tensor& scores) const;
  void decide_alone();
  // log probabilities, led away from what would be written without the prompt.
  at::Tensor guided(const at::Tensor& logits) const;
  // The text of all rows, int64 [rows, columns], with padding before it, and after rows that ended before `steps`.
  at::Tensor texts(int64_t steps) const;
  // Which rows the user's own criteria end.
  std::vector<bool> stopped(const at::Tensor& texts) const;
  std::function<double()> draws() {
    return [this] { return uniform(0, 0); };
  }

  const Options options_;
  const Callback& logits_processor_;   // texts -> scores
  const Callback& stopping_criteria_;  // texts -> bool [rows]
  mutable std::mutex mutex_;
  std::atomic<bool> cancelled_{false};
  c10::intrusive_ptr<Module> network_;
  std::unique_ptr<CausalStepper> stepper_;
  std::unique_ptr<LogitsProcessors> processors_;
  std::unique_ptr<CausalStepper> negative_;  // of the prompt that guidance leads away from
  at::Tensor unconditional_;                 // its logits of the coming choice
  c10::intrusive_ptr<Module> assistant_;
  std::unique_ptr<Drafter> drafter_;
  Draft draft_;         // what the network has read ahead
  at::Tensor ahead_;    // its logits after the last token and after each of those
  size_t guessed_ = 0;  // how many of those have been chosen
  int64_t drafted_ = 0, accepted_ = 0;
  int64_t vocabulary_ = 0;
  at::Tensor prompt_ids_;  // int64 [prompts, time] on the CPU
  at::Tensor prompt_mask_;
  at::Tensor prompt_logits_;
  int64_t prompt_columns_ = 0;
  int64_t past_ = 0;         // tokens in the cache that was given
  bool keeps_rows_ = false;  // ended rows go on, because someone looks at the cache or the scores
  std::vector<Row> rows_;
  std::vector<size_t> active_;  // the rows that the stepper has
  std::unique_ptr<BeamSearch> beams_;
  at::Tensor logits_;     // of the coming choice; while one is due, they are defined
  at::Tensor likeliest_;  // or the tokens that it comes to
  at::Tensor upcoming_;   // those after it, which the stepper knows ahead; of the rows that were active before
  at::Tensor next_;       // ids that the stepper reads next
  at::Tensor reordered_;  // rows that it takes first, with beams
  int64_t steps_ = 0;
  std::optional<at::Generator> generator_;
  at::Tensor uniforms_;
  std::vector<at::Tensor> kept_scores_, kept_logits_;
  bool begun_ = false, done_ = false;
  // In a batch:
  bool joined_ = false;
  c10::intrusive_ptr<nn::KvCache> cache_;
  at::Tensor to_read_;  // of the prompt: ids [time] or embeddings [time, dim]
  std::optional<Ids>
      prompt_keys_;  // none where other things than these determine what the prompt's keys and values are
};

}  // namespace voxtorch::generation

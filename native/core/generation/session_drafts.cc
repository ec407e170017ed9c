// How a session uses guesses at its next tokens: speculative decoding.
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "core/generation/session.h"

namespace voxtorch::generation {

using at::Tensor;

void Session::prepare_drafts(const Start& start, int64_t longest) {
  TORCH_CHECK_VALUE(rows_.size() == 1, "a draft of the next tokens is for one row, without beams; there are ",
                    rows_.size());
  TORCH_CHECK_VALUE(!uniforms_.defined() && options_.guidance == 1,
                    "a draft of the next tokens goes with neither "
                    "uniforms nor guidance_scale");
  TORCH_CHECK_VALUE(!start.assistant || options_.lookup == 0, "give either an assistant or prompt_lookup_num_tokens");
  if (!start.assistant) {
    drafter_ = lookup_drafter(options_.lookup_ngram);
    return;
  }
  const auto* assistant = dynamic_cast<const Generative*>(start.assistant.get());
  TORCH_CHECK(assistant != nullptr, "a network of kind ", start.assistant->kind, " does not generate");
  TORCH_CHECK_VALUE(assistant->vocabulary_size() == vocabulary_, "the assistant has ", assistant->vocabulary_size(),
                    " tokens, but the network ", vocabulary_);
  TORCH_CHECK_VALUE(start.prompt.ids.defined() || start.context.defined(),
                    "an assistant reads input_ids; embeddings are the network's own");
  assistant_ = start.assistant;
  AssistantRules rules;
  rules.process = [this](const Ids& text, int64_t guessed, float* scores) {
    const Written written{text, rows_.front().generated + guessed, prompt_columns_};
    processors_->before(written, scores);
    if (processors_->constrains(nullptr)) processors_->constrain(written, nullptr, scores);
    processors_->after(written, scores);
    if (options_.sample) narrow_choice(options_, scores, vocabulary_);
  };
  if (options_.sample) rules.uniform = draws();
  rules.eos = options_.eos;
  rules.confidence = options_.draft_confidence;
  rules.longest = static_cast<int64_t>(rows_.front().ids.size()) + longest;
  Prompt audio;
  audio.encoder_states = start.assistant_states.defined() ? start.assistant_states : start.prompt.encoder_states;
  audio.encoder_mask = start.prompt.encoder_mask;
  drafter_ = assistant_drafter(assistant->stepper({}), vocabulary_, std::move(audio), std::move(rules));
}

// The network reads the last token and a draft of what follows it in one pass. As long as the draft is what is chosen,
// the logits are there already; where it is not, what came after is forgotten.
Tensor Session::next_logits() {
  if (!drafter_) return stepper_->step(next_);
  const Row& row = rows_.front();
  const int64_t id = row.ids.back();
  if (guessed_ < draft_.ids.size() && draft_.ids[guessed_] == id) {
    ++guessed_;
    ++accepted_;
    return ahead_.narrow(0, static_cast<int64_t>(guessed_), 1);
  }
  forget_guesses();
  const int64_t most = options_.lookup > 0 ? options_.lookup : options_.drafted;
  const int64_t guesses = stepper_->readable_ahead(std::min(most, row.limit - row.generated - 1));
  Draft draft = drafter_->draft(row.ids, guesses);
  draft_ = Draft();
  if (draft.ids.empty()) return ahead_ = stepper_->step(next_);
  Ids read{id};
  read.insert(read.end(), draft.ids.begin(), draft.ids.end());
  ahead_ = stepper_->extend(at::tensor(read, at::kLong).unsqueeze(0)).squeeze(0);
  drafted_ += static_cast<int64_t>(draft.ids.size());
  draft_ = std::move(draft);
  return ahead_.narrow(0, 0, 1);
}

void Session::forget_guesses() {
  stepper_->rewind(static_cast<int64_t>(draft_.ids.size() - guessed_));
  draft_ = Draft();
  guessed_ = 0;
}

// A pass over several tokens adds in another order than one over a single token, and so may choose otherwise where two
// tokens are as good as each other: there a pass over one token decides, as it does without guesses.
bool Session::is_near_tie(const Tensor& scores) const {
  if (!drafter_ || !ahead_.defined() || ahead_.size(0) < 2 || options_.sample) return false;
  const Tensor row = scores.reshape({-1});
  if (row.numel() < 2) return false;
  const Tensor best = std::get<0>(row.topk(2));
  const auto type = logits_.scalar_type();
  // Roundings of the dtype, relative to the largest logit: what the two passes of a deep network may differ by.
  const double rounding = type == at::kBFloat16 ? 0x1p-6
                          : type == at::kHalf   ? 0x1p-9
                          : type == at::kDouble ? 1e-11
                                                : 1e-4;
  const double gap = best[0].item<double>() - best[1].item<double>();
  return !(gap > rounding * logits_.abs().max().item<double>());
}

void Session::decide_alone() {
  // The last token and what was guessed after it are read no more, then the token by itself.
  stepper_->rewind(static_cast<int64_t>(draft_.ids.size() - guessed_) + 1);
  draft_ = Draft();
  guessed_ = 0;
  ahead_ = logits_ = stepper_->step(next_);
  if (options_.keep_logits) kept_logits_.back() = logits_.to(at::kCPU, at::kFloat, false, true);
}

}  // namespace voxtorch::generation

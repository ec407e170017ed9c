#include "core/generation/session.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace voxtorch::generation {

using at::Tensor;

namespace {

void check_matrix(const Tensor& tensor, int64_t batch, const char* name) {
  if (!tensor.defined()) return;
  TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) == batch, name, " must be [", batch, ", time], got ", tensor.sizes());
}

void check_ids(const Tensor& ids, const char* name) {
  TORCH_CHECK(!ids.defined() || ids.scalar_type() == at::kLong, name, " must be int64, got ", ids.scalar_type());
}

}  // namespace

Session::Session(const Config& config, const std::vector<double>& biases)
    : Module("Generation", {}),
      options_(config, biases),
      logits_processor_(*child<Callback>("logits_processor", "LogitsProcessor")),
      stopping_criteria_(*child<Callback>("stopping_criteria", "StoppingCriteria")) {}

Session::~Session() = default;

void Session::check_usable() const {
  TORCH_CHECK(!cancelled_, "the generation was given up");
  TORCH_CHECK(!done_, "the generation is over");
}

Added Session::begin(const c10::intrusive_ptr<Module>& network, const Start& start, const Allowed* allowed) {
  const std::lock_guard<std::mutex> lock(mutex_);
  check_usable();
  if (!begun_) {
    prepare(network, start);
    const auto& generative = dynamic_cast<const Generative&>(*network);
    const bool own_rows = options_.beams == 1 && options_.returned == 1;
    auto cache = start.cache;
    if (cache && !own_rows) cache = cache->copy();
    // Callers that read rows expect each in its place.
    const bool watched = logits_processor_.hooked() || stopping_criteria_.hooked();
    keeps_rows_ = options_.keep_scores || options_.keep_logits || cache || watched;
    stepper_ = generative.stepper(std::move(cache));
    read(start, generative);
    begun_ = true;
  }
  return choose(allowed);
}

void Session::prepare(const c10::intrusive_ptr<Module>& network, const Start& start) {
  const auto* generative = dynamic_cast<const Generative*>(network.get());
  TORCH_CHECK(generative != nullptr, "a network of kind ", network->kind, " does not generate");
  network_ = network;
  vocabulary_ = generative->vocabulary_size();
  processors_ = std::make_unique<LogitsProcessors>(options_, vocabulary_);
  generator_ = start.generator;
  uniforms_ = start.uniforms.defined() ? start.uniforms.to(at::kCPU, at::kDouble).contiguous() : Tensor();
}

Added Session::step(const Allowed* allowed) {
  const std::lock_guard<std::mutex> lock(mutex_);
  check_usable();
  TORCH_CHECK(begun_, "the generation has not begun");
  TORCH_CHECK(!joined_, "the generation is part of a batch, whose steps are its own");
  // Of a choice that failed before: a generation has a constraint from its beginning, or none.
  TORCH_INTERNAL_ASSERT(!likeliest_.defined() || is_plain(allowed));
  if (!logits_.defined() && upcoming_.defined()) {
    take_ahead();
  } else if (!logits_.defined() && !likeliest_.defined()) {
    if (reordered_.defined()) {
      stepper_->reorder(reordered_);
      if (negative_) negative_->reorder(reordered_);
    }
    reordered_ = Tensor();
    if (negative_ && !unconditional_.defined()) unconditional_ = negative_->step(next_);
    if (is_plain(allowed) && !drafter_ && !options_.keep_logits) likeliest_ = stepper_->likeliest(next_);
    if (!likeliest_.defined()) logits_ = next_logits();
  }
  return choose(allowed);
}

Ids Session::values_of(const Tensor& ids) {
  const Tensor flat = ids.to(at::kCPU).contiguous();
  const int64_t* data = flat.const_data_ptr<int64_t>();
  return {data, data + flat.numel()};
}

int64_t Session::take_prompt(const Start& start) {
  const Prompt& prompt = start.prompt;
  rows_.clear();
  active_.clear();
  past_ = start.cache ? start.cache->length() : 0;
  TORCH_CHECK(prompt.ids.defined() || prompt.embeddings.defined(), "give input_ids or inputs_embeds");
  check_ids(prompt.ids, "input_ids");
  check_ids(start.context, "context_ids");
  const Tensor& read = prompt.embeddings.defined() ? prompt.embeddings : prompt.ids;
  TORCH_CHECK(read.dim() == (prompt.embeddings.defined() ? 3 : 2) && read.size(0) > 0 && read.size(1) > 0,
              "there must be at least one token, in ids [batch, time] or embeddings [batch, time, dim], got ",
              read.sizes());
  const int64_t batch = read.size(0);
  prompt_columns_ = read.size(1);
  check_matrix(prompt.ids, batch, "input_ids");
  check_matrix(prompt.mask, batch, "attention_mask");
  check_matrix(start.context, batch, "context_ids");
  TORCH_CHECK(!prompt.mask.defined() || prompt.mask.size(1) >= prompt_columns_, "attention_mask must be [", batch,
              ", the tokens of the cache and of the input], got ", prompt.mask.sizes());
  TORCH_CHECK(start.limits.empty() || static_cast<int64_t>(start.limits.size()) == batch,
              "there must be a limit of new tokens for each of ", batch, " rows, got ", start.limits.size());
  TORCH_CHECK_VALUE(prompt.place < prompt_columns_, "the prompt has no token ", prompt.place, ", but ",
                    prompt_columns_);
  TORCH_CHECK(start.limits.empty() || options_.beams == 1, "with beams all rows have the same limit of new tokens");
  const int64_t longest =
      options_.max_new_tokens >= 0 ? options_.max_new_tokens : options_.max_length - prompt_columns_;
  TORCH_CHECK_VALUE(longest > 0, "max_length is ", options_.max_length, ", but the prompt has ", prompt_columns_,
                    " tokens already");
  prompt_ids_ = prompt.ids.defined() ? prompt.ids.to(at::kCPU).contiguous() : Tensor();
  prompt_mask_ = prompt.mask.defined() ? prompt.mask.to(at::kCPU, at::kLong).contiguous() : Tensor();

  std::vector<Ids> texts;
  for (int64_t row = 0; row < batch; ++row) {
    Ids text = start.context.defined() ? values_of(start.context.select(0, row)) : Ids();
    if (prompt_ids_.defined()) {
      Ids ids = values_of(prompt_ids_.select(0, row));
      int64_t padding = 0;
      if (prompt_mask_.defined()) {
        const int64_t past = prompt_mask_.size(1) - prompt_columns_, width = prompt_ids_.size(1);
        const int64_t* real = prompt_mask_.const_data_ptr<int64_t>() + row * prompt_mask_.size(1) + past;
        while (padding < std::min(width, prompt_columns_) && real[padding] == 0) ++padding;
      }
      text.insert(text.end(), ids.begin() + padding, ids.end());
    }
    texts.push_back(std::move(text));
  }
  const int64_t copies = options_.beams > 1 ? options_.beams : options_.returned;
  for (int64_t row = 0; row < batch; ++row) {
    const auto at = static_cast<size_t>(row);
    const int64_t limit = start.limits.empty() ? longest : std::min(longest, start.limits[at]);
    TORCH_CHECK_VALUE(limit > 0, "each row must be allowed one new token at least, got ", limit);
    for (int64_t copy = 0; copy < copies; ++copy) {
      active_.push_back(rows_.size());
      rows_.push_back({texts[at], 0, limit, {}, End::kNone});
    }
  }
  if (options_.beams > 1) beams_ = std::make_unique<BeamSearch>(options_, texts, longest);
  return longest;
}

void Session::read(const Start& start, const Generative& network) {
  const int64_t longest = take_prompt(start);
  const int64_t copies = options_.beams > 1 ? options_.beams : options_.returned;
  const int64_t batch = static_cast<int64_t>(rows_.size()) / copies;
  Prompt whole = start.prompt;
  whole.more = longest;
  const PromptLogits read_logits = stepper_->prefill(whole);
  logits_ = read_logits.next;
  if (read_logits.at_place.defined()) prompt_logits_ = read_logits.at_place.to(at::kCPU, at::kFloat);
  if (copies > 1) {
    const Tensor each = at::arange(batch, at::TensorOptions().dtype(at::kLong)).repeat_interleave(copies);
    stepper_->reorder(each);
    logits_ = logits_.repeat_interleave(copies, 0);
  }
  if (options_.guidance != 1) read_negative(start, network, longest, copies);
  if (start.assistant || options_.lookup > 0) prepare_drafts(start, longest);
}

// Ho and Salimans 2022, https://arxiv.org/abs/2207.12598; for texts Sanchez et al. 2023,
// https://arxiv.org/abs/2306.17806.
void Session::read_negative(const Start& start, const Generative& network, int64_t longest, int64_t copies) {
  TORCH_CHECK_VALUE(
      !start.prompt.encoder_states.defined() && !start.prompt.encoder_cache,
      "guidance_scale is for language models; what is written about audio has no prompt to lead away from");
  const int64_t batch = static_cast<int64_t>(rows_.size()) / copies;
  Prompt negative;
  negative.ids = start.negative_ids;
  negative.mask = start.negative_mask;
  negative.more = longest;
  if (!negative.ids.defined()) {
    TORCH_CHECK_VALUE(start.prompt.ids.defined(),
                      "guidance_scale needs negative_prompt_ids where there are no input_ids");
    negative.ids = start.prompt.ids.narrow(1, start.prompt.ids.size(1) - 1, 1);
  }
  check_ids(negative.ids, "negative_prompt_ids");
  check_matrix(negative.ids, batch, "negative_prompt_ids");
  TORCH_CHECK(!negative.mask.defined() || negative.mask.sizes().equals(negative.ids.sizes()),
              "negative_prompt_attention_mask must be ", negative.ids.sizes(), " like negative_prompt_ids, got ",
              negative.mask.sizes());
  negative_ = network.stepper({});
  unconditional_ = negative_->prefill(negative).next;
  if (copies > 1) {
    negative_->reorder(at::arange(batch, at::TensorOptions().dtype(at::kLong)).repeat_interleave(copies));
    unconditional_ = unconditional_.repeat_interleave(copies, 0);
  }
}

Added Session::choose(const Allowed* allowed) {
  TORCH_CHECK(allowed == nullptr || allowed->size() == rows_.size(),
              "there must be a set of allowed tokens for each of ", rows_.size(), " rows");
  if (options_.keep_logits) {
    kept_logits_.push_back(logits_.to(at::kCPU, at::kFloat, false, true));
    if (!logits_.is_cpu()) logits_ = kept_logits_.back().clone();
  }
  Added added = beams_ ? choose_beams(allowed) : choose_tokens(allowed);
  logits_ = likeliest_ = unconditional_ = Tensor();
  ++steps_;
  added.done = done_;
  if (done_) {
    if (drafter_) forget_guesses();
    drafter_.reset();
    negative_.reset();
    assistant_.reset();
    ahead_ = upcoming_ = Tensor();
    stepper_.reset();
    network_.reset();
  }
  return added;
}

Written Session::written_of(size_t row) const {
  if (beams_) {
    const Beam& beam = beams_->running(static_cast<int64_t>(row));
    return {beam.ids, beam.generated, prompt_columns_};
  }
  return {rows_[row].ids, rows_[row].generated, prompt_columns_};
}

Tensor Session::texts(int64_t steps) const {
  std::vector<Written> rows;
  int64_t columns = 0;
  for (size_t row = 0; row < rows_.size(); ++row) {
    rows.push_back(written_of(row));
    columns = std::max(columns, static_cast<int64_t>(rows.back().ids.size()) + steps - rows.back().generated);
  }
  Tensor result = at::full({static_cast<int64_t>(rows.size()), columns}, options_.pad, at::kLong);
  for (size_t row = 0; row < rows.size(); ++row) {
    int64_t* end = result.mutable_data_ptr<int64_t>() + static_cast<int64_t>(row + 1) * columns;
    std::copy_backward(rows[row].ids.begin(), rows[row].ids.end(), end - (steps - rows[row].generated));
  }
  return result;
}

std::vector<Ids> Session::written() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Ids> result;
  for (size_t row = 0; row < rows_.size(); ++row) result.push_back(written_of(row).ids);
  return result;
}

Session::Result Session::result() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  TORCH_CHECK(begun_, "the generation has not begun");
  struct Answer {
    Ids ids;
    std::vector<float> logprobs;
    End end;
    float score;
    int64_t prompt;
  };
  const int64_t copies = beams_ ? options_.beams : options_.returned;
  const int64_t prompts = static_cast<int64_t>(rows_.size()) / copies;
  std::vector<Answer> answers;
  for (int64_t prompt = 0; prompt < prompts; ++prompt) {
    const std::vector<Beam> beams = beams_ ? beams_->results(prompt) : std::vector<Beam>();
    for (int64_t i = 0; i < options_.returned; ++i) {
      const auto take = [&](const Ids& ids, int64_t generated, const std::vector<float>& logprobs, End end,
                            float score) {
        answers.push_back({Ids(ids.end() - generated, ids.end()), logprobs, end, score, prompt});
      };
      if (beams_) {
        const Beam& beam = beams[static_cast<size_t>(i)];
        take(beam.ids, beam.generated, beam.logprobs, beam.end, beam.score);
      } else {
        const Row& row = rows_[static_cast<size_t>(prompt * copies + i)];
        take(row.ids, row.generated, row.logprobs, row.end, 0);
      }
    }
  }
  const auto count = static_cast<int64_t>(answers.size());
  int64_t longest = 0;
  for (const Answer& answer : answers) longest = std::max(longest, static_cast<int64_t>(answer.ids.size()));
  Result result;
  result.prompt_logits = prompt_logits_;
  result.drafted = drafted_;
  result.accepted = accepted_;
  const int64_t width = prompt_ids_.defined() ? prompt_ids_.size(1) : 0;
  result.sequences = at::full({count, width + longest}, options_.pad, at::kLong);
  if (options_.keep_logprobs) result.logprobs = at::zeros({count, longest}, at::kFloat);
  std::vector<float> scores;
  for (int64_t i = 0; i < count; ++i) {
    const Answer& answer = answers[static_cast<size_t>(i)];
    int64_t* row = result.sequences.mutable_data_ptr<int64_t>() + i * (width + longest);
    if (width > 0) std::copy_n(prompt_ids_.const_data_ptr<int64_t>() + answer.prompt * width, width, row);
    std::copy(answer.ids.begin(), answer.ids.end(), row + width);
    if (options_.keep_logprobs) {
      std::copy(answer.logprobs.begin(), answer.logprobs.end(),
                result.logprobs.mutable_data_ptr<float>() + i * longest);
    }
    result.lengths.push_back(static_cast<int64_t>(answer.ids.size()));
    result.ends.push_back(static_cast<int64_t>(answer.end));
    scores.push_back(answer.score);
  }
  if (beams_) result.sequences_scores = at::tensor(scores);
  if (options_.keep_scores && !kept_scores_.empty()) result.scores = at::stack(kept_scores_);
  if (options_.keep_logits && !kept_logits_.empty()) result.logits = at::stack(kept_logits_);
  if (!beams_ && options_.returned == 1 && keeps_rows_) {
    // The token that was chosen last has not been read.
    Tensor mask = prompt_mask_.defined() ? prompt_mask_ : at::ones({count, past_ + prompt_columns_}, at::kLong);
    Tensor more = at::zeros({count, std::max<int64_t>(0, steps_ - 1)}, at::kLong);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t real = std::min<int64_t>(result.lengths[static_cast<size_t>(i)], more.size(1));
      more.select(0, i).narrow(0, 0, real).fill_(1);
    }
    result.attention_mask = at::cat({mask, more}, 1);
  }
  return result;
}

}  // namespace voxtorch::generation

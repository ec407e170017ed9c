#include "core/generation/session.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/DistributionsHelper.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "core/generation/sampling.h"
#include "core/transfers.h"

namespace voxtorch::generation {

using at::Tensor;

namespace {

bool ends_with(const Ids& ids, int64_t generated, const Ids& tail) {
  return static_cast<int64_t>(tail.size()) <= generated &&
         std::equal(tail.begin(), tail.end(), ids.end() - static_cast<int64_t>(tail.size()));
}

Ids values_of(const Tensor& ids) {
  const Tensor flat = ids.to(at::kCPU).contiguous();
  const int64_t* data = flat.const_data_ptr<int64_t>();
  return {data, data + flat.numel()};
}

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
    // Whoever looks at rows wants each in its place.
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
  if (!logits_.defined() && upcoming_.defined()) {
    take_ahead();
  } else if (!logits_.defined()) {
    if (reordered_.defined()) {
      stepper_->reorder(reordered_);
      if (negative_) negative_->reorder(reordered_);
    }
    reordered_ = Tensor();
    if (negative_ && !unconditional_.defined()) unconditional_ = negative_->step(next_);
    logits_ = next_logits();
  }
  return choose(allowed);
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
// the logits are there already; where it is not, what came behind is forgotten.
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
  Draft draft = drafter_->draft(row.ids, std::min(most, row.limit - row.generated - 1));
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
  // The last token and what was guessed behind it are read no more, then the token by itself.
  stepper_->rewind(static_cast<int64_t>(draft_.ids.size() - guessed_) + 1);
  draft_ = Draft();
  guessed_ = 0;
  ahead_ = logits_ = stepper_->step(next_);
  if (options_.keep_logits) kept_logits_.back() = logits_.to(at::kCPU, at::kFloat, false, true);
}

Tensor Session::guided(const Tensor& logits) const {
  const Tensor with = at::log_softmax(logits.to(at::kCPU, at::kFloat), -1);
  const Tensor without = at::log_softmax(unconditional_.to(at::kCPU, at::kFloat), -1);
  return ((with - without) * options_.guidance + without).contiguous();
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

std::vector<bool> Session::stopped(const Tensor& texts) const {
  std::vector<bool> result(static_cast<size_t>(texts.size(0)), false);
  if (!stopping_criteria_.hooked()) return result;
  const Tensor none = at::zeros({texts.size(0)}, at::kBool);
  const Tensor ends = stopping_criteria_.watched(texts, none).to(at::kCPU, at::kBool);
  TORCH_CHECK(ends.sizes().equals(none.sizes()), "a stopping criterion must tell for each of ", texts.size(0),
              " rows whether it ends, got ", ends.sizes());
  const Tensor flat = ends.contiguous();
  std::copy_n(flat.const_data_ptr<bool>(), flat.numel(), result.begin());
  return result;
}

Added Session::choose(const Allowed* allowed) {
  TORCH_CHECK(allowed == nullptr || allowed->size() == rows_.size(),
              "there must be a set of allowed tokens for each of ", rows_.size(), " rows");
  if (options_.keep_logits) {
    kept_logits_.push_back(logits_.to(at::kCPU, at::kFloat, false, true));
    if (!logits_.is_cpu()) logits_ = kept_logits_.back().clone();
  }
  Added added = beams_ ? choose_beams(allowed) : choose_tokens(allowed);
  logits_ = unconditional_ = Tensor();
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

void Session::open(const c10::intrusive_ptr<Module>& network, const Start& start) {
  const std::lock_guard<std::mutex> lock(mutex_);
  check_usable();
  TORCH_CHECK(!begun_, "the generation has begun already");
  prepare(network, start);
  const Prompt& prompt = start.prompt;
  TORCH_CHECK_VALUE(options_.beams == 1 && options_.returned == 1 && options_.guidance == 1 && options_.lookup == 0 &&
                        !start.assistant && prompt.place < 0,
                    "in a batch a text has no beams, no other answers, no guidance and no guesses");
  TORCH_CHECK_VALUE(!prompt.encoder_states.defined() && !prompt.encoder_cache,
                    "a decoder language model has no cross-attention");
  const int64_t longest = take_prompt(start);
  TORCH_CHECK_VALUE(rows_.size() == 1, "in a batch each text comes by itself, but there are ", rows_.size(), " rows");
  TORCH_CHECK_VALUE(!prompt_mask_.defined() || prompt_mask_.ne(0).all().item<bool>(),
                    "in a batch a text has no padding, but attention_mask has zeros");
  TORCH_CHECK_VALUE(!prompt_mask_.defined() || prompt_mask_.size(1) == past_ + prompt_columns_,
                    "attention_mask must be [1, ", past_ + prompt_columns_, "], got ", prompt_mask_.sizes());
  const bool embedded = prompt.embeddings.defined();
  to_read_ = embedded ? prompt.embeddings.select(0, 0) : prompt_ids_.select(0, 0).clone();
  known_by_ids_ = !embedded && !start.cache && !start.context.defined();
  cache_ = start.cache ? start.cache : c10::make_intrusive<nn::KvCache>(ModuleOptions(), Config());
  cache_->reserve(cache_->length() + prompt_columns_ + longest);
  stepper_ = dynamic_cast<const Generative&>(*network).stepper(cache_);
  keeps_rows_ = start.cache || options_.keep_scores || options_.keep_logits || logits_processor_.hooked() ||
                stopping_criteria_.hooked();
  begun_ = joined_ = true;
}

void Session::skip(int64_t tokens) { to_read_ = to_read_.narrow(0, tokens, unread() - tokens); }

int64_t Session::unread() const { return to_read_.defined() ? to_read_.size(0) : 0; }

Piece Session::piece(int64_t most) const {
  if (!to_read_.defined()) return {next_, Tensor(), cache_.get(), true};
  const int64_t time = std::min(most, unread());
  const Tensor part = to_read_.narrow(0, 0, time);
  const bool ids = part.dim() == 1;
  return {ids ? part : Tensor(), ids ? Tensor() : part, cache_.get(), time == unread()};
}

bool Session::has_read(int64_t tokens, const Tensor& logits) {
  if (tokens < unread())
    skip(tokens);
  else
    to_read_ = Tensor();
  if (to_read_.defined()) return false;
  logits_ = logits;
  return true;
}

Added Session::choose_next(const Allowed* allowed) {
  const std::lock_guard<std::mutex> lock(mutex_);
  check_usable();
  return choose(allowed);
}

Tensor Session::read_alone() { return stepper_->step(next_); }

Ids Session::in_cache() const {
  if (!known_by_ids_) return {};
  const Ids& ids = rows_.front().ids;
  const auto length = std::min(cache_->length(), static_cast<int64_t>(ids.size()));
  return {ids.begin(), ids.begin() + length};
}

Written Session::written_of(size_t row) const {
  if (beams_) {
    const Beam& beam = beams_->running(static_cast<int64_t>(row));
    return {beam.ids, beam.generated, prompt_columns_};
  }
  return {rows_[row].ids, rows_[row].generated, prompt_columns_};
}

void Session::process(const Tensor& scores, const std::vector<size_t>& row_of, const Allowed* allowed) {
  const int64_t count = scores.size(0);
  const auto row = [&](int64_t i) { return scores.mutable_data_ptr<float>() + i * vocabulary_; };
  const auto set_of = [&](int64_t i) {
    return allowed == nullptr ? nullptr : &(*allowed)[row_of[static_cast<size_t>(i)]];
  };
  const auto text_of = [&](int64_t i) { return written_of(row_of[static_cast<size_t>(i)]); };
  for (int64_t i = 0; i < count; ++i) processors_->before(text_of(i), row(i));
  if (processors_->constrains(allowed == nullptr ? nullptr : &allowed->front())) {
    for (int64_t first = 0; first < count; first += options_.beams) {
      bool any = false;
      for (int64_t i = first; i < first + options_.beams; ++i) {
        processors_->constrain(text_of(i), set_of(i), row(i));
        any = any || *std::max_element(row(i), row(i) + vocabulary_) > kForbidden;
      }
      for (int64_t i = first; !any && i < first + options_.beams; ++i) {
        processors_->release(text_of(i), set_of(i), row(i));
      }
    }
  }
  for (int64_t i = 0; i < count; ++i) processors_->after(text_of(i), row(i));
  if (logits_processor_.hooked()) {
    const Tensor changed = logits_processor_.watched(texts(steps_), scores.clone());
    TORCH_CHECK(changed.sizes().equals(scores.sizes()) && changed.is_floating_point(),
                "a logits processor must return scores ", scores.sizes(), ", got ", changed.scalar_type(), " ",
                changed.sizes());
    scores.copy_(changed);
  }
  for (int64_t i = 0; i < count; ++i) {
    if (options_.sample) narrow_choice(options_, row(i), vocabulary_);
    if (options_.renormalize) normalize(row(i), vocabulary_);
  }
}

Added Session::choose_tokens(const Allowed* allowed) {
  Added added;
  const bool plain = processors_->empty() && allowed == nullptr && !options_.sample && !options_.renormalize &&
                     !options_.keep_scores && !options_.keep_logprobs && !logits_processor_.hooked() && !negative_;
  Ids chosen(rows_.size(), options_.pad);
  std::vector<float> logprobs(rows_.size(), 0);
  if (plain) {
    if (is_near_tie(logits_)) decide_alone();
    const Tensor best = at::argmax(logits_, -1);
    Arrival arrival(best);
    read_ahead(best);
    const Ids ids = values_of(arrival.here());
    for (size_t i = 0; i < active_.size(); ++i) chosen[active_[i]] = ids[i];
  } else {
    Tensor scores =
        negative_ ? guided(logits_) : logits_.to(at::kCPU, at::kFloat, false, drafter_ != nullptr).contiguous();
    process(scores, active_, allowed);
    if (is_near_tie(scores)) {
      decide_alone();
      scores = logits_.to(at::kCPU, at::kFloat, false, true).contiguous();
      process(scores, active_, allowed);
    }
    if (options_.keep_scores) kept_scores_.push_back(scores);
    for (size_t i = 0; i < active_.size(); ++i) {
      const size_t row = active_[i];
      const float* mine = scores.const_data_ptr<float>() + static_cast<int64_t>(i) * vocabulary_;
      if (rows_[row].end != End::kNone) continue;
      if (options_.sample) {
        const Choice choice = choice_of(mine, vocabulary_);
        chosen[row] = guessed_ < draft_.from.size()
                          ? accept_or_draw(draft_.ids[guessed_], draft_.from[guessed_], choice, draws())
                          : choice.ids[draw(choice, uniform(static_cast<int64_t>(row), 0))];
      } else {
        chosen[row] = std::max_element(mine, mine + vocabulary_) - mine;
      }
      if (options_.keep_logprobs) logprobs[row] = log_probability(mine, vocabulary_, chosen[row]);
    }
  }
  for (size_t i = 0; i < rows_.size(); ++i) {
    Row& row = rows_[i];
    if (row.end == End::kNone) {
      row.ids.push_back(chosen[i]);
      ++row.generated;
      if (options_.keep_logprobs) row.logprobs.push_back(logprobs[i]);
      row.end = end_of(row.ids, row.generated, row.limit);
    } else {
      chosen[i] = options_.pad;
    }
  }
  const std::vector<bool> stops = stopping_criteria_.hooked() ? stopped(texts(steps_ + 1)) : std::vector<bool>();
  for (size_t i = 0; i < rows_.size(); ++i) {
    Row& row = rows_[i];
    if (!stops.empty() && stops[i] && row.end == End::kNone) row.end = End::kStopSequence;
    added.ends.push_back(static_cast<int64_t>(row.end));
    if (options_.keep_logprobs) added.logprobs.push_back(logprobs[i]);
  }
  added.ids = std::move(chosen);
  drop_ended();
  return added;
}

// Nothing more is computed for rows that have ended.
void Session::drop_ended() {
  std::vector<size_t> going;
  Ids places, next;
  for (size_t i = 0; i < active_.size(); ++i) {
    const Row& row = rows_[active_[i]];
    const bool ended = row.end != End::kNone;
    if (ended && !keeps_rows_) continue;
    going.push_back(active_[i]);
    places.push_back(static_cast<int64_t>(i));
    next.push_back(ended && row.generated <= steps_ ? options_.pad : row.ids.back());
  }
  done_ = std::all_of(rows_.begin(), rows_.end(), [](const Row& row) { return row.end != End::kNone; });
  if (done_) return;
  reordered_ = going.size() < active_.size() ? at::tensor(places, at::kLong) : Tensor();
  active_ = std::move(going);
  next_ = at::tensor(next, at::kLong);
}

void Session::read_ahead(const Tensor& best) {
  const auto ended = [&](size_t i) { return rows_[active_[i]].end != End::kNone; };
  bool goes_on = false;
  for (const Row& row : rows_) goes_on = goes_on || (row.end == End::kNone && row.generated + 1 < row.limit);
  if (!stepper_ || drafter_ || !goes_on || best.is_cpu()) return;
  try {
    for (size_t i = 0; i < active_.size(); ++i) {
      if (ended(i)) best.narrow(0, static_cast<int64_t>(i), 1).fill_(options_.pad);
    }
    upcoming_ = stepper_->ahead(best);
  } catch (const std::exception&) {
    // These ids are told all the same; what is wrong is met again, and told, where they are read next.
    upcoming_ = Tensor();
  }
}

void Session::take_ahead() {
  Tensor logits = upcoming_;
  if (reordered_.defined()) logits = logits.index_select(0, upload(reordered_, logits.device()));
  stepper_->take_ahead();
  try {
    if (reordered_.defined()) stepper_->reorder(reordered_);
  } catch (...) {
    stepper_->rewind(1);
    throw;
  }
  logits_ = std::move(logits);
  upcoming_ = reordered_ = Tensor();
}

Added Session::choose_beams(const Allowed* allowed) {
  const Tensor scores =
      negative_ ? guided(logits_) : at::log_softmax(logits_.to(at::kCPU, at::kFloat), -1).contiguous();
  process(scores, active_, allowed);
  if (options_.keep_scores) kept_scores_.push_back(scores);
  const int64_t limit = rows_.front().limit;
  const Ids sources = beams_->advance(
      scores,
      [&](const Beam& beam) {
        const End end = end_of(beam.ids, beam.generated, limit);
        if (end != End::kNone || !stopping_criteria_.hooked()) return end;
        return stopped(at::tensor(beam.ids, at::kLong).unsqueeze(0)).front() ? End::kStopSequence : end;
      },
      [&](int64_t prompt, int64_t count) {
        std::vector<double> result;
        for (int64_t i = 0; i < count; ++i) result.push_back(uniform(prompt, i));
        return result;
      });
  done_ = beams_->done();
  Ids next;
  for (int64_t row = 0; row < beams_->rows(); ++row) next.push_back(beams_->running(row).ids.back());
  next_ = at::tensor(next, at::kLong);
  reordered_ = at::tensor(sources, at::kLong);
  return {};
}

double Session::uniform(int64_t row, int64_t place) {
  if (uniforms_.defined()) {
    const bool matrix = uniforms_.dim() == 2;
    const auto inside = [&](int64_t dim, int64_t index) { return index < uniforms_.size(dim); };
    TORCH_CHECK_VALUE(
        uniforms_.dim() == (beams_ ? 3 : 2) && inside(0, steps_) && inside(1, row) && (matrix || inside(2, place)),
        "uniforms ", uniforms_.sizes(), " has no number for step ", steps_, ", row ", row);
    const int64_t at = (steps_ * uniforms_.size(1) + row) * (matrix ? 1 : uniforms_.size(2)) + place;
    return uniforms_.const_data_ptr<double>()[at];
  }
  auto* generator =
      at::get_generator_or_default<at::CPUGeneratorImpl>(generator_, at::detail::getDefaultCPUGenerator());
  const std::lock_guard<std::mutex> lock(generator->mutex_);
  at::uniform_real_distribution<double> uniform(0, 1);
  return uniform(generator);
}

End Session::end_of(const Ids& ids, int64_t generated, int64_t limit) const {
  if (std::find(options_.eos.begin(), options_.eos.end(), ids.back()) != options_.eos.end()) return End::kToken;
  for (const Ids& sequence : options_.stop_sequences) {
    if (ends_with(ids, generated, sequence)) return End::kStopSequence;
  }
  return generated >= limit ? End::kLength : End::kNone;
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

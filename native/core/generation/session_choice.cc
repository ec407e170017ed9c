// What a session chooses next of the logits, and which rows end with it.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/core/DistributionsHelper.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "core/generation/sampling.h"
#include "core/generation/session.h"
#include "core/runtime/transfers.h"

namespace voxtorch::generation {

using at::Tensor;

namespace {

bool ends_with(const Ids& ids, int64_t generated, const Ids& tail) {
  return static_cast<int64_t>(tail.size()) <= generated &&
         std::equal(tail.begin(), tail.end(), ids.end() - static_cast<int64_t>(tail.size()));
}

}  // namespace

Tensor Session::guided(const Tensor& logits) const {
  const Tensor with = at::log_softmax(logits.to(at::kCPU, at::kFloat), -1);
  const Tensor without = at::log_softmax(unconditional_.to(at::kCPU, at::kFloat), -1);
  return ((with - without) * options_.guidance + without).contiguous();
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

bool Session::is_plain(const Allowed* allowed) const {
  return !beams_ && processors_->empty() && allowed == nullptr && !options_.sample && !options_.renormalize &&
         !options_.keep_scores && !options_.keep_logprobs && !logits_processor_.hooked() && !negative_;
}

Added Session::choose_tokens(const Allowed* allowed) {
  Added added;
  Ids chosen(rows_.size(), options_.pad);
  std::vector<float> logprobs(rows_.size(), 0);
  if (is_plain(allowed)) {
    if (is_near_tie(logits_)) decide_alone();
    const Tensor best = likeliest_.defined() ? likeliest_ : at::argmax(logits_, -1);
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
    // These ids are returned all the same; the error occurs again, and is reported, where they are read next.
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

}  // namespace voxtorch::generation

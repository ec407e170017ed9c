#include "core/generation/beams.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/generation/sampling.h"

namespace voxtorch::generation {
namespace {

// Added to the score of what must not be chosen while there is anything else.
constexpr float kHopeless = -1e9F;

float divisor(int64_t length, double penalty) {
  return static_cast<float>(std::pow(static_cast<double>(length), penalty));
}

void sort_by_score(std::vector<Beam>& beams) {
  std::stable_sort(beams.begin(), beams.end(), [](const Beam& a, const Beam& b) { return a.score > b.score; });
}

}  // namespace

BeamSearch::BeamSearch(const Options& options, const std::vector<Ids>& prompts, int64_t longest)
    : options_(options),
      beams_(options.beams),
      // As many as end the text may be chosen, and as many others are left.
      kept_(std::max<int64_t>(2, 1 + static_cast<int64_t>(options.eos.size())) * beams_),
      longest_(longest) {
  for (const Ids& ids : prompts) {
    Prompt prompt;
    for (int64_t beam = 0; beam < beams_; ++beam) {
      prompt.running.push_back({ids, 0, beam == 0 ? 0 : kHopeless, {}, End::kNone});
    }
    prompts_.push_back(std::move(prompt));
  }
}

Ids BeamSearch::advance(const at::Tensor& scores, const Ends& ends, const Draws& draws) {
  const int64_t vocabulary = scores.size(1);
  std::vector<float> before;
  for (int64_t row = 0; row < rows(); ++row) before.push_back(running(row).score);
  const at::Tensor totals = (scores + at::tensor(before).unsqueeze(1)).reshape({-1, beams_ * vocabulary});
  const float* logprobs = scores.const_data_ptr<float>();
  ++generated_;
  Ids sources;
  bool all_end = true;
  for (size_t i = 0; i < prompts_.size(); ++i) {
    Prompt& prompt = prompts_[i];
    const auto first = static_cast<int64_t>(i) * beams_;
    std::vector<Beam> next;
    std::vector<int64_t> from;
    for (const Candidate& one : candidates(totals, static_cast<int64_t>(i), vocabulary, draws)) {
      Beam beam = prompt.running[static_cast<size_t>(one.beam)];
      beam.ids.push_back(one.id);
      ++beam.generated;
      beam.score = one.score;
      beam.logprobs.push_back(logprobs[(first + one.beam) * vocabulary + one.id]);
      beam.end = ends(beam);
      all_end = all_end && beam.end != End::kNone;
      next.push_back(std::move(beam));
      from.push_back(first + one.beam);
    }
    std::vector<size_t> order(next.size());
    std::iota(order.begin(), order.end(), 0);
    const auto hope = [&](size_t at) { return next[at].score + (next[at].end != End::kNone ? kHopeless : 0); };
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return hope(a) > hope(b); });
    prompt.running.clear();
    for (size_t at = 0; at < static_cast<size_t>(beams_); ++at) {
      Beam beam = next[order[at]];
      beam.score = hope(order[at]);
      beam.end = End::kNone;
      prompt.running.push_back(std::move(beam));
      sources.push_back(from[order[at]]);
    }
    finish(prompt, next);
    prompt.improvable = prompt.improvable && can_improve(prompt);
  }
  const auto every = [&](auto test) { return std::all_of(prompts_.begin(), prompts_.end(), test); };
  const bool none_improves = every([](const Prompt& prompt) { return !prompt.improvable; });
  const bool enough =
      options_.early_stopping == EarlyStopping::kYes && every([this](const Prompt& prompt) { return full(prompt); });
  done_ = none_improves || enough || all_end;
  return sources;
}

std::vector<BeamSearch::Candidate> BeamSearch::candidates(const at::Tensor& totals, int64_t prompt, int64_t vocabulary,
                                                          const Draws& draws) const {
  const at::Tensor mine = totals.select(0, prompt);
  std::vector<Candidate> result;
  const auto add = [&](float score, int64_t place) {
    result.push_back({score, place / vocabulary, place % vocabulary});
  };
  const int64_t count = std::min(kept_, mine.numel());
  if (!options_.sample) {
    const auto [values, places] = at::topk(mine, count);
    for (int64_t i = 0; i < count; ++i) add(values.const_data_ptr<float>()[i], places.const_data_ptr<int64_t>()[i]);
    return result;
  }
  const float* scores = mine.const_data_ptr<float>();
  Choice choice = choice_of(scores, mine.numel());
  // Without putting back; what is too unlikely to be drawn comes last.
  std::vector<uint8_t> taken(choice.ids.size(), 0);
  const auto take = [&](size_t at) {
    taken[at] = 1;
    add(scores[choice.ids[at]], choice.ids[at]);
    choice.weights[at] = 0;
    choice.total = std::accumulate(choice.weights.begin(), choice.weights.end(), 0.0);
  };
  for (const double u : draws(prompt, count)) {
    if (choice.total > 0) take(draw(choice, u));
  }
  for (size_t at = 0; at < taken.size() && static_cast<int64_t>(result.size()) < count; ++at) {
    if (taken[at] == 0) take(at);
  }
  TORCH_CHECK_VALUE(static_cast<int64_t>(result.size()) >= beams_, "fewer tokens are allowed than there are beams");
  return result;
}

// Among the best `beams_` candidates, those that end are answers.
void BeamSearch::finish(Prompt& prompt, std::vector<Beam>& candidates) const {
  if (!prompt.improvable || (options_.early_stopping == EarlyStopping::kYes && full(prompt))) return;
  for (size_t i = 0; i < static_cast<size_t>(beams_); ++i) {
    Beam& beam = candidates[i];
    if (beam.end == End::kNone) continue;
    beam.score = beam.score / divisor(generated_, options_.length_penalty);
    prompt.finished.push_back(std::move(beam));
  }
  sort_by_score(prompt.finished);
  if (prompt.finished.size() > static_cast<size_t>(beams_)) prompt.finished.resize(static_cast<size_t>(beams_));
}

// Whether the best running beam could still beat the worst finished one.
bool BeamSearch::can_improve(const Prompt& prompt) const {
  const bool to_the_end = options_.early_stopping == EarlyStopping::kNever && options_.length_penalty > 0;
  const int64_t length = to_the_end ? longest_ : generated_;
  const float best = prompt.running.front().score / divisor(length, options_.length_penalty);
  // Places that nothing has finished in are as bad as can be.
  return !full(prompt) || best > prompt.finished.back().score;
}

std::vector<Beam> BeamSearch::results(int64_t prompt) const {
  const Prompt& mine = prompts_[static_cast<size_t>(prompt)];
  std::vector<Beam> result = mine.finished;
  for (const Beam& beam : mine.running) {
    if (static_cast<int64_t>(result.size()) == beams_) break;
    result.push_back(beam);
  }
  return result;
}

}  // namespace voxtorch::generation

#include "core/generation/drafts.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

namespace voxtorch::generation {

using at::Tensor;

namespace {

class AssistantDrafter : public Drafter {
 public:
  AssistantDrafter(std::unique_ptr<CausalStepper> stepper, int64_t vocabulary, Prompt audio, AssistantRules rules)
      : stepper_(std::move(stepper)), vocabulary_(vocabulary), audio_(std::move(audio)), rules_(std::move(rules)) {}

  Draft draft(const Ids& given, int64_t most) override {
    Draft result;
    if (most < 1) return result;
    Ids text = given;
    Tensor logits = read(text);
    while (true) {
      const Tensor scores = logits.to(at::kCPU, at::kFloat, false, true).contiguous();
      float* row = scores.mutable_data_ptr<float>();
      rules_.process(text, static_cast<int64_t>(result.ids.size()), row);
      Choice choice = choice_of(row, vocabulary_);
      if (choice.total <= 0) return result;
      const size_t place = rules_.uniform ? draw(choice, rules_.uniform()) : likeliest(choice);
      const int64_t id = choice.ids[place];
      const double probability = choice.weights[place] / choice.total;
      result.ids.push_back(id);
      if (rules_.uniform) result.from.push_back(std::move(choice));
      const bool ends = std::find(rules_.eos.begin(), rules_.eos.end(), id) != rules_.eos.end();
      if (ends || probability < rules_.confidence || static_cast<int64_t>(result.ids.size()) == most) return result;
      text.push_back(id);
      logits = stepper_->step(at::tensor({id}, at::kLong));
      read_.push_back(id);
    }
  }

 private:
  // Logits of what follows the text; only what the network has not read of it yet is read.
  Tensor read(const Ids& text) {
    size_t known = 0;
    const size_t most = std::min(read_.size(), text.size() - 1);
    while (known < most && read_[known] == text[known]) ++known;
    const Ids rest(text.begin() + static_cast<int64_t>(known), text.end());
    const Tensor ids = at::tensor(rest, at::kLong).unsqueeze(0);
    Tensor logits;
    if (begun_) {
      stepper_->rewind(static_cast<int64_t>(read_.size() - known));
      read_.resize(known);
      const Tensor each = stepper_->extend(ids);
      logits = each.select(1, each.size(1) - 1);
    } else {
      Prompt prompt = audio_;
      prompt.ids = ids;
      prompt.more = std::max<int64_t>(1, rules_.longest - static_cast<int64_t>(text.size()));
      logits = stepper_->prefill(prompt).next;
      begun_ = true;
    }
    read_ = text;
    return logits;
  }

  static size_t likeliest(const Choice& choice) {
    return static_cast<size_t>(std::max_element(choice.weights.begin(), choice.weights.end()) - choice.weights.begin());
  }

  const std::unique_ptr<CausalStepper> stepper_;
  const int64_t vocabulary_;
  const Prompt audio_;  // the prompt's audio
  const AssistantRules rules_;
  Ids read_;
  bool begun_ = false;
};

// https://github.com/apoorvumang/prompt-lookup-decoding
class LookupDrafter : public Drafter {
 public:
  explicit LookupDrafter(int64_t ngram) : ngram_(ngram) {}

  Draft draft(const Ids& text, int64_t most) override {
    const auto size = static_cast<int64_t>(text.size());
    for (int64_t length = std::min(ngram_, size - 1); length >= 1; --length) {
      const auto found = std::search(text.begin(), text.end() - 1, text.end() - length, text.end());
      if (found == text.end() - 1) continue;
      const auto from = found + length;
      return {Ids(from, from + std::min<int64_t>(std::max<int64_t>(most, 0), text.end() - from)), {}};
    }
    return {};
  }

 private:
  const int64_t ngram_;
};

double weight_of(const Choice& choice, int64_t id) {
  const auto found = std::lower_bound(choice.ids.begin(), choice.ids.end(), id);
  if (found == choice.ids.end() || *found != id) return 0;
  return choice.weights[static_cast<size_t>(found - choice.ids.begin())] / choice.total;
}

}  // namespace

std::unique_ptr<Drafter> assistant_drafter(std::unique_ptr<CausalStepper> stepper, int64_t vocabulary, Prompt audio,
                                           AssistantRules rules) {
  return std::make_unique<AssistantDrafter>(std::move(stepper), vocabulary, std::move(audio), std::move(rules));
}

std::unique_ptr<Drafter> lookup_drafter(int64_t ngram) { return std::make_unique<LookupDrafter>(ngram); }

int64_t accept_or_draw(int64_t guess, const Choice& guessed, const Choice& wanted,
                       const std::function<double()>& uniform) {
  if (uniform() * weight_of(guessed, guess) < weight_of(wanted, guess)) return guess;
  Choice missing;
  for (size_t i = 0; i < wanted.ids.size(); ++i) {
    const double weight = wanted.weights[i] / wanted.total - weight_of(guessed, wanted.ids[i]);
    if (weight <= 0) continue;
    missing.ids.push_back(wanted.ids[i]);
    missing.weights.push_back(weight);
    missing.total += weight;
  }
  // Nothing is missing but for rounding.
  const Choice& rest = missing.total > 0 ? missing : wanted;
  return rest.ids[draw(rest, uniform())];
}

}  // namespace voxtorch::generation

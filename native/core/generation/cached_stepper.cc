#include "core/generation/cached_stepper.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>

namespace voxtorch::generation {

using at::Tensor;

CachedStepper::CachedStepper(at::Device device, c10::intrusive_ptr<nn::KvCache> cache)
    : cache_(or_new(std::move(cache))), device_(device) {}

CachedStepper::Tokens CachedStepper::read(const Prompt& prompt) {
  Tokens tokens;
  tokens.embeddings = prompt.embeddings;
  if (!prompt.embeddings.defined()) tokens.ids = prompt.ids.to(device_);
  const Tensor& given = prompt.embeddings.defined() ? prompt.embeddings : prompt.ids;
  cache_->reserve(cache_->length() + given.size(1) + prompt.more);
  if (prompt.mask.defined()) {
    const Tensor real = prompt.mask.to(at::kBool);
    if (!real.all().item<bool>()) {
      tokens.mask = real.to(device_);
      mask_ = at::cat({tokens.mask, at::ones({real.size(0), prompt.more}, tokens.mask.options())}, 1);
      next_ = tokens.mask.sum(1, /*keepdim=*/true);
    }
  }
  return tokens;
}

Tensor CachedStepper::step(const Tensor& ids) {
  Tokens tokens;
  tokens.ids = ids.to(device_).unsqueeze(1);
  if (mask_.defined()) {
    tokens.mask = mask_.narrow(1, 0, cache_->length() + 1);
    tokens.positions = next_;
  }
  const Tensor logits = logits_at(hidden_of(tokens), -1);
  if (next_.defined()) next_ = next_ + 1;
  return logits;
}

Tensor CachedStepper::extend(const Tensor& ids) {
  Tokens tokens;
  tokens.ids = ids.to(device_);
  const int64_t time = ids.size(1);
  if (mask_.defined()) {
    tokens.mask = mask_.narrow(1, 0, cache_->length() + time);
    tokens.positions = next_ + at::arange(time, next_.options());
  }
  const Tensor logits = logits_of(hidden_of(tokens));
  if (next_.defined()) next_ = next_ + time;
  return logits;
}

void CachedStepper::rewind(int64_t tokens) {
  if (tokens == 0) return;
  cache_->crop(cache_->length() - tokens);
  if (next_.defined()) next_ = next_ - tokens;
}

void CachedStepper::reorder(const Tensor& rows) {
  cache_->reorder(rows);
  if (!mask_.defined()) return;
  const Tensor places = rows.to(mask_.device());
  mask_ = mask_.index_select(0, places);
  next_ = next_.index_select(0, places);
}

PromptLogits CachedStepper::answer(const Prompt& prompt, const Tensor& hidden) const {
  return {logits_at(hidden, -1), prompt.place < 0 ? Tensor() : logits_at(hidden, prompt.place)};
}

Tensor CachedStepper::logits_at(const Tensor& hidden, int64_t place) const {
  return logits_of(hidden.narrow(1, place, 1).contiguous()).squeeze(1);
}

c10::intrusive_ptr<nn::KvCache> CachedStepper::or_new(c10::intrusive_ptr<nn::KvCache> cache) {
  return cache ? std::move(cache) : c10::make_intrusive<nn::KvCache>(ModuleOptions(), Config());
}

}  // namespace voxtorch::generation

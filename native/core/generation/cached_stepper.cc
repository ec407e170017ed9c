#include "core/generation/cached_stepper.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>

#include <algorithm>

#include "core/runtime/transfers.h"

namespace voxtorch::generation {

using at::Tensor;

namespace {

// Columns that are added at once: a text may end long before its limit.
constexpr int64_t kMaskAhead = 1024;

}  // namespace

CachedStepper::CachedStepper(at::Device device, c10::intrusive_ptr<nn::KvCache> cache)
    : cache_(or_new(std::move(cache))), device_(device) {}

CachedStepper::Tokens CachedStepper::read(const Prompt& prompt) {
  Tokens tokens;
  tokens.embeddings = prompt.embeddings;
  if (!prompt.embeddings.defined()) tokens.ids = upload(prompt.ids, device_);
  const Tensor& given = prompt.embeddings.defined() ? prompt.embeddings : prompt.ids;
  cache_->reserve(cache_->length() + given.size(1) + prompt.more);
  tokens.wanted = prompt.place < 0 ? 1 : given.size(1) - prompt.place;
  if (prompt.mask.defined()) {
    const Tensor real = prompt.mask.to(at::kBool);
    if (!real.all().item<bool>()) {
      tokens.mask = real.to(device_);
      mask_ = tokens.mask;
      grow_mask(real.size(1) + std::min(prompt.more, kMaskAhead));
      host_shift_ = real.cpu().sum(1, /*keepdim=*/true) - real.size(1);
      shift_ = upload(host_shift_, device_);
      most_shift_ = host_shift_.max().item<int64_t>();
    }
  }
  return tokens;
}

void CachedStepper::grow_mask(int64_t columns) {
  if (!mask_.defined() || mask_.size(1) >= columns) return;
  const int64_t more = std::max(columns - mask_.size(1), kMaskAhead);
  mask_ = at::cat({mask_, at::ones({mask_.size(0), more}, mask_.options())}, 1);
}

Tensor CachedStepper::step(const Tensor& ids) {
  const Tensor there = upload(ids, device_);
  grow_mask(cache_->length() + 1);
  if (const Tensor logits = quick_logits(there); logits.defined()) return logits;
  Tokens tokens;
  tokens.ids = there.unsqueeze(1);
  if (mask_.defined()) {
    tokens.mask = mask_.narrow(1, 0, cache_->length() + 1);
    tokens.positions = shift_ + cache_->length();
  }
  return logits_at(hidden_of(tokens), -1);
}

Tensor CachedStepper::likeliest(const Tensor& ids) {
  grow_mask(cache_->length() + 1);
  return quick_likeliest(upload(ids, device_));
}

Tensor CachedStepper::ahead(const Tensor& ids) {
  if (device_.is_cpu()) return {};
  Tensor logits = step(ids);
  cache_->crop(cache_->length() - 1);
  return logits;
}

void CachedStepper::take_ahead() { cache_->advance(1); }

Tensor CachedStepper::extend(const Tensor& ids) {
  Tokens tokens;
  tokens.ids = upload(ids, device_);
  const int64_t past = cache_->length(), time = ids.size(1);
  grow_mask(past + time);
  if (mask_.defined()) {
    tokens.mask = mask_.narrow(1, 0, past + time);
    tokens.positions = shift_ + at::arange(past, past + time, shift_.options());
  }
  return logits_of(hidden_of(tokens));
}

void CachedStepper::rewind(int64_t tokens) {
  if (tokens == 0) return;
  cache_->crop(cache_->length() - tokens);
}

void CachedStepper::reorder(const Tensor& rows) {
  cache_->reorder(rows);
  if (!mask_.defined()) return;
  const Tensor places = upload(rows, mask_.device());
  mask_ = mask_.index_select(0, places);
  shift_ = shift_.index_select(0, places);
  host_shift_ = host_shift_.index_select(0, rows);
  if (rows.numel() > 0) most_shift_ = host_shift_.max().item<int64_t>();
}

PromptLogits CachedStepper::answer(const Prompt& prompt, const Tensor& hidden) const {
  if (prompt.place < 0) return {logits_at(hidden, -1), Tensor()};
  const int64_t time = (prompt.embeddings.defined() ? prompt.embeddings : prompt.ids).size(1);
  return {logits_at(hidden, -1), logits_at(hidden, prompt.place - (time - hidden.size(1)))};
}

Tensor CachedStepper::logits_at(const Tensor& hidden, int64_t place) const {
  return logits_of(hidden.narrow(1, place, 1).contiguous()).squeeze(1);
}

c10::intrusive_ptr<nn::KvCache> CachedStepper::or_new(c10::intrusive_ptr<nn::KvCache> cache) {
  return cache ? std::move(cache) : c10::make_intrusive<nn::KvCache>(ModuleOptions(), Config());
}

}  // namespace voxtorch::generation

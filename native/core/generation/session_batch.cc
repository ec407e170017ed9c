// A session of a Batch, which reads for several at once, in place of begin() and step().
#include <algorithm>

#include "core/generation/session.h"

namespace voxtorch::generation {

using at::Tensor;

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
  TORCH_CHECK_VALUE(!start.prefix_keys.defined() || embedded, "prefix_keys are for inputs_embeds; ids have none");
  if (!start.cache && !start.context.defined() && (!embedded || start.prefix_keys.defined())) {
    const Tensor& keys = embedded ? start.prefix_keys : prompt_ids_;
    check_ids(keys, "prefix_keys");
    TORCH_CHECK_VALUE(keys.dim() == 2 && keys.size(0) == 1 && keys.size(1) == prompt_columns_,
                      "prefix_keys must be [1, ", prompt_columns_, "], got ", keys.sizes());
    prompt_keys_ = values_of(keys.select(0, 0));
  }
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
  if (!to_read_.defined()) return {next_, Tensor(), cache_.get(), true, cache_->length() + 1, false};
  const int64_t time = std::min(most, unread());
  const Tensor part = to_read_.narrow(0, 0, time);
  const bool ids = part.dim() == 1;
  const int64_t whole = cache_->length() + unread();
  return {ids ? part : Tensor(), ids ? Tensor() : part, cache_.get(), time == unread(), whole, true};
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
  if (!prompt_keys_) return {};
  const Row& row = rows_.front();
  Ids keys = *prompt_keys_;
  keys.insert(keys.end(), row.ids.end() - row.generated, row.ids.end());
  keys.resize(std::min(static_cast<size_t>(cache_->length()), keys.size()));
  return keys;
}

}  // namespace voxtorch::generation

// How a generation session drives the decoder.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>

#include "core/models/decoder_lm.h"

namespace voxtorch::models {

using at::Tensor;

namespace {

class DecoderStepper : public generation::CausalStepper {
 public:
  DecoderStepper(const DecoderLM& network, c10::intrusive_ptr<nn::KvCache> cache)
      : network_(network),
        device_(network.all_parameters().front().device()),
        cache_(cache ? std::move(cache) : c10::make_intrusive<nn::KvCache>(ModuleOptions(), Config())) {}

  Tensor prefill(const generation::Prompt& prompt) override {
    TORCH_CHECK(!prompt.encoder_states.defined() && !prompt.encoder_cache,
                "a decoder language model has no cross-attention");
    DecoderLMInputs inputs;
    if (prompt.embeddings.defined())
      inputs.embeddings = prompt.embeddings;
    else
      inputs.ids = prompt.ids;
    const Tensor& given = prompt.embeddings.defined() ? prompt.embeddings : prompt.ids;
    cache_->reserve(cache_->length() + given.size(1) + prompt.more);
    if (prompt.mask.defined()) {
      const Tensor real = prompt.mask.to(at::kBool);
      if (!real.all().item<bool>()) {
        inputs.mask = real;
        mask_ = at::cat({real, at::ones({real.size(0), prompt.more}, real.options())}, 1);
        next_ = real.sum(1, /*keepdim=*/true);
      }
    }
    return logits_of(inputs);
  }

  Tensor step(const Tensor& ids) override {
    DecoderLMInputs inputs;
    inputs.ids = ids.to(device_).unsqueeze(1);
    if (mask_.defined()) {
      inputs.mask = mask_.narrow(1, 0, cache_->length() + 1);
      inputs.positions = next_;
    }
    const Tensor logits = logits_of(inputs);
    if (next_.defined()) next_ = next_ + 1;
    return logits;
  }

  void reorder(const Tensor& rows) override {
    cache_->reorder(rows);
    if (!mask_.defined()) return;
    const Tensor places = rows.to(mask_.device());
    mask_ = mask_.index_select(0, places);
    next_ = next_.index_select(0, places);
  }

 private:
  // Of the last token of each row.
  Tensor logits_of(DecoderLMInputs& inputs) {
    inputs.cache = cache_.get();
    const Tensor hidden = network_.forward(inputs).last_hidden_state;
    return network_.logits(hidden.narrow(1, hidden.size(1) - 1, 1).contiguous()).squeeze(1);
  }

  const DecoderLM& network_;
  const at::Device device_;
  const c10::intrusive_ptr<nn::KvCache> cache_;
  Tensor mask_;  // bool [batch, all tokens that may come]; undefined: no padding
  Tensor next_;  // int64 [batch, 1]: the position of the next token; with a mask only
};

}  // namespace

std::unique_ptr<generation::CausalStepper> DecoderLM::stepper(c10::intrusive_ptr<nn::KvCache> cache) const {
  return std::make_unique<DecoderStepper>(*this, std::move(cache));
}

}  // namespace voxtorch::models

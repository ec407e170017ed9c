// How a generation session drives the decoder.
#include "core/generation/cached_stepper.h"
#include "core/models/decoder_lm_decode.h"

namespace voxtorch::models {

using at::Tensor;

namespace {

class DecoderStepper : public generation::CachedStepper {
 public:
  DecoderStepper(const DecoderLM& network, c10::intrusive_ptr<nn::KvCache> cache)
      : CachedStepper(network.all_parameters().front().device(), std::move(cache)),
        network_(network),
        decode_(network, {cache_.get()}) {}

  generation::PromptLogits prefill(const generation::Prompt& prompt) override {
    TORCH_CHECK(!prompt.encoder_states.defined() && !prompt.encoder_cache,
                "a decoder language model has no cross-attention");
    DecoderLMInputs inputs = inputs_of(read(prompt));
    inputs.is_prompt = true;
    return answer(prompt, network_.forward(inputs).last_hidden_state);
  }

  int64_t readable_ahead(int64_t most) const override {
    return network_.model.rotary.before_change(cache_->length() + 1 + most_shift_, most);
  }

 private:
  DecoderLMInputs inputs_of(const Tokens& tokens) const {
    DecoderLMInputs inputs{tokens.ids, tokens.mask, tokens.positions, tokens.embeddings, cache_.get()};
    inputs.wanted = tokens.wanted;
    return inputs;
  }
  Tensor hidden_of(const Tokens& tokens) override {
    DecoderLMInputs inputs = inputs_of(tokens);
    inputs.is_guess = tokens.ids.defined() && tokens.ids.size(1) > 1;
    return network_.forward(inputs).last_hidden_state;
  }
  Tensor quick_logits(const Tensor& ids) override { return decode_.logits(ids, mask_, shift_, most_shift_); }
  Tensor quick_likeliest(const Tensor& ids) override { return decode_.likeliest(ids, mask_, shift_, most_shift_); }
  Tensor logits_of(const Tensor& hidden) const override { return network_.logits(hidden); }

  const DecoderLM& network_;
  DecoderDecode decode_;
};

}  // namespace

std::unique_ptr<generation::CausalStepper> DecoderLM::stepper(c10::intrusive_ptr<nn::KvCache> cache) const {
  return std::make_unique<DecoderStepper>(*this, std::move(cache));
}

}  // namespace voxtorch::models

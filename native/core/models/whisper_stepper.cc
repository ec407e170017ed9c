// How a generation session drives Whisper. The keys and values of the audio are computed once, and the rows of beams or
// of several answers share those of their prompt.
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "core/generation/cached_stepper.h"
#include "core/models/whisper_decode.h"

namespace voxtorch::models {

using at::Tensor;

namespace {

class WhisperStepper : public generation::CachedStepper {
 public:
  WhisperStepper(const Whisper& network, c10::intrusive_ptr<nn::KvCache> cache)
      : CachedStepper(network.all_parameters().front().device(), std::move(cache)),
        network_(network),
        decode_(network),
        heard_(or_new({})) {}

  generation::PromptLogits prefill(const generation::Prompt& prompt) override {
    TORCH_CHECK(!prompt.embeddings.defined(), "Whisper's decoder reads input_ids, not inputs_embeds");
    const int64_t columns = cache_->length() + prompt.ids.size(1), room = network_.config.target_positions;
    TORCH_CHECK_VALUE(prompt.mask.defined() || columns + prompt.more - 1 <= room, "the prompt's ", columns,
                      " tokens and ", prompt.more, " new ones do not fit into max_target_positions ", room);
    if (prompt.encoder_cache) {
      heard_ = prompt.encoder_cache;
      shared_ = true;
    }
    if (prompt.encoder_mask.defined()) heard_mask_ = prompt.encoder_mask.to(device_, at::kBool);
    const Tensor hidden = decode(read(prompt), prompt.encoder_states);
    const int64_t rows = prompt.ids.size(0), group = rows / heard_->batch();
    for (int64_t row = 0; row < rows; ++row) audio_.push_back(row / group);
    return answer(prompt, hidden);
  }

  void reorder(const Tensor& rows) override {
    CachedStepper::reorder(rows);
    const int64_t* sources = rows.const_data_ptr<int64_t>();
    std::vector<int64_t> audio;
    for (int64_t i = 0; i < rows.size(0); ++i) audio.push_back(audio_[static_cast<size_t>(sources[i])]);
    audio_ = std::move(audio);
  }

 private:
  // For a whole pass rows must be as many for each clip, clip by clip; where they are not, each gets a clip of its own.
  void move_audio() {
    if (audio_.empty()) return;
    const auto rows = static_cast<int64_t>(audio_.size());
    std::vector<int64_t> clips = audio_;
    clips.erase(std::unique(clips.begin(), clips.end()), clips.end());
    const auto count = static_cast<int64_t>(clips.size());
    bool even = rows % count == 0;
    for (int64_t row = 0; even && row < rows; ++row) {
      even = audio_[static_cast<size_t>(row)] == clips[static_cast<size_t>(row / (rows / count))];
    }
    if (!even) clips = audio_;
    bool same = static_cast<int64_t>(clips.size()) == heard_->batch();
    for (size_t i = 0; same && i < clips.size(); ++i) same = clips[i] == static_cast<int64_t>(i);
    if (!same) {
      if (shared_) heard_ = heard_->copy();
      shared_ = false;
      const Tensor places = at::tensor(clips, at::kLong);
      heard_->reorder(places);
      if (heard_mask_.defined()) heard_mask_ = heard_mask_.index_select(0, places.to(heard_mask_.device()));
    }
    const int64_t group = rows / static_cast<int64_t>(clips.size());
    for (int64_t row = 0; row < rows; ++row) audio_[static_cast<size_t>(row)] = row / group;
  }

  Tensor quick_logits(const Tensor& ids) override {
    if (mask_.defined() || heard_mask_.defined()) return {};
    return decode_.logits(ids, audio_, *cache_, *heard_);
  }
  Tensor hidden_of(const Tokens& tokens) override { return decode(tokens, Tensor()); }
  Tensor logits_of(const Tensor& hidden) const override { return network_.logits(hidden); }

  // Encoder states are needed until heard_ has their keys and values.
  Tensor decode(const Tokens& tokens, const Tensor& encoder_states) {
    move_audio();
    WhisperDecoderInputs inputs{tokens.ids, tokens.mask, tokens.positions, encoder_states, heard_mask_};
    inputs.cache = cache_.get();
    inputs.encoder_cache = heard_.get();
    return network_.model.decoder.forward(inputs).last_hidden_state;
  }

  const Whisper& network_;
  WhisperDecode decode_;
  c10::intrusive_ptr<nn::KvCache> heard_;  // of the audio
  bool shared_ = false;                    // it is the caller's, to be left as it is
  std::vector<int64_t> audio_;             // the row of heard_ for each row
  Tensor heard_mask_;                      // bool [clips, frames]; undefined: all is real
};

}  // namespace

std::unique_ptr<generation::CausalStepper> Whisper::stepper(c10::intrusive_ptr<nn::KvCache> cache) const {
  return std::make_unique<WhisperStepper>(*this, std::move(cache));
}

}  // namespace voxtorch::models

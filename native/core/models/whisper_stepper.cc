// How a generation session drives Whisper. The keys and values of the audio are computed once, and the rows of beams or
// of several answers share those of their prompt.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "core/models/whisper.h"

namespace voxtorch::models {

using at::Tensor;

namespace {

c10::intrusive_ptr<nn::KvCache> or_new(c10::intrusive_ptr<nn::KvCache> cache) {
  return cache ? std::move(cache) : c10::make_intrusive<nn::KvCache>(ModuleOptions(), Config());
}

class WhisperStepper : public generation::CausalStepper {
 public:
  WhisperStepper(const Whisper& network, c10::intrusive_ptr<nn::KvCache> cache)
      : network_(network),
        device_(network.all_parameters().front().device()),
        cache_(or_new(std::move(cache))),
        heard_(or_new({})) {}

  Tensor prefill(const generation::Prompt& prompt) override {
    TORCH_CHECK(!prompt.embeddings.defined(), "Whisper's decoder reads input_ids, not inputs_embeds");
    const int64_t columns = cache_->length() + prompt.ids.size(1), room = network_.config.target_positions;
    TORCH_CHECK_VALUE(prompt.mask.defined() || columns + prompt.more - 1 <= room, "the prompt's ", columns,
                      " tokens and ", prompt.more, " new ones do not fit into max_target_positions ", room);
    WhisperDecoderInputs inputs;
    inputs.ids = prompt.ids;
    inputs.encoder_states = prompt.encoder_states;
    if (prompt.encoder_cache) {
      heard_ = prompt.encoder_cache;
      shared_ = true;
    }
    if (prompt.encoder_mask.defined()) heard_mask_ = prompt.encoder_mask.to(at::kBool);
    cache_->reserve(columns + prompt.more);
    if (prompt.mask.defined()) {
      const Tensor real = prompt.mask.to(at::kBool);
      if (!real.all().item<bool>()) {
        inputs.mask = real;
        mask_ = at::cat({real, at::ones({real.size(0), prompt.more}, real.options())}, 1);
        next_ = real.sum(1, /*keepdim=*/true);
      }
    }
    const Tensor logits = logits_of(inputs);
    const int64_t rows = prompt.ids.size(0), group = rows / heard_->batch();
    for (int64_t row = 0; row < rows; ++row) audio_.push_back(row / group);
    return logits;
  }

  Tensor step(const Tensor& ids) override {
    WhisperDecoderInputs inputs;
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
    const int64_t* sources = rows.const_data_ptr<int64_t>();
    std::vector<int64_t> audio;
    for (int64_t i = 0; i < rows.size(0); ++i) audio.push_back(audio_[static_cast<size_t>(sources[i])]);
    audio_ = std::move(audio);
    move_audio();
    if (!mask_.defined()) return;
    const Tensor places = rows.to(mask_.device());
    mask_ = mask_.index_select(0, places);
    next_ = next_.index_select(0, places);
  }

 private:
  // Rows must be as many for each clip, clip by clip; where they are not, each gets a clip of its own.
  void move_audio() {
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

  // Of the last token of each row.
  Tensor logits_of(WhisperDecoderInputs& inputs) {
    inputs.cache = cache_.get();
    inputs.encoder_cache = heard_.get();
    inputs.encoder_mask = heard_mask_;
    const Tensor hidden = network_.model.decoder.forward(inputs).last_hidden_state;
    return network_.logits(hidden.narrow(1, hidden.size(1) - 1, 1).contiguous()).squeeze(1);
  }

  const Whisper& network_;
  const at::Device device_;
  const c10::intrusive_ptr<nn::KvCache> cache_;
  c10::intrusive_ptr<nn::KvCache> heard_;  // of the audio
  bool shared_ = false;                    // it is the caller's, to be left as it is
  std::vector<int64_t> audio_;             // the row of heard_ for each row
  Tensor heard_mask_;                      // bool [clips, frames]; undefined: all is real
  Tensor mask_;                            // bool [batch, all tokens that may come]; undefined: no padding
  Tensor next_;                            // int64 [batch, 1]: the position of the next token; with a mask only
};

}  // namespace

std::unique_ptr<generation::CausalStepper> Whisper::stepper(c10::intrusive_ptr<nn::KvCache> cache) const {
  return std::make_unique<WhisperStepper>(*this, std::move(cache));
}

}  // namespace voxtorch::models

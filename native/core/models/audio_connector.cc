// What stands between the audio encoder and the language model of Qwen2-Audio (https://arxiv.org/abs/2407.10759),
// Voxtral (https://arxiv.org/abs/2507.13264), Audio Flamingo 3 (https://arxiv.org/abs/2507.08128) and others: a
// projection, or two with an activation, of frames or of several stacked frames, with the names of their checkpoints.
#include <torch/library.h>

#include "core/nn/linear.h"

namespace voxtorch::models {

using at::Tensor;

namespace {

class AudioConnector : public Block {
 public:
  AudioConnector(const ModuleOptions& options, const Config& c)
      : Block("AudioConnector", options),
        stacked_(c.integer("stacked_frames", 1)),
        width_(c.integer("input_size")),
        activation_(nn::activation(c.text("activation", "gelu"))) {
    TORCH_CHECK(stacked_ > 0, "stacked_frames must be positive, got ", stacked_);
    const int64_t hidden = c.integer("hidden_size"), between = c.integer("intermediate_size", hidden);
    const bool bias = c.boolean("bias", true);
    const double std = c.number("initializer_range", 0.02);
    if (c.boolean("has_activation", true)) {
      up_ = child<nn::Linear>("linear_1", width_ * stacked_, between, bias, std);
      down_ = child<nn::Linear>("linear_2", between, hidden, bias, std);
    } else {
      down_ = child<nn::Linear>("linear", width_ * stacked_, hidden, bias, std);
    }
  }

  Tensor forward(const Tensor& states) const {
    TORCH_CHECK(states.dim() == 3 && states.size(2) == width_, "states must be [windows, frames, ", width_, "], got ",
                states.sizes());
    TORCH_CHECK(states.size(1) % stacked_ == 0, "frames must be a multiple of ", stacked_, ", got ", states.size(1));
    // [windows, tokens, stacked * width]
    const Tensor input =
        stacked_ == 1 ? states : states.reshape({states.size(0), states.size(1) / stacked_, stacked_ * width_});
    return watched(states, down_->forward(up_ == nullptr ? input : up_->forward(input, activation_)));
  }

 private:
  const int64_t stacked_, width_;
  const nn::Activation activation_;
  const nn::Linear *up_ = nullptr, *down_ = nullptr;
};

const RegisteredModule registered_audio_connector("audio_connector", make_module<AudioConnector>);

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("audio_connect(__torch__.torch.classes.voxtorch.Module self, Tensor states) -> Tensor embeddings",
        [](const c10::intrusive_ptr<Module>& self, const Tensor& states) {
          return network<AudioConnector>(self, "audio_connect").forward(states);
        });
}

}  // namespace voxtorch::models

// What stands between the audio encoder and the language model of Qwen2-Audio (https://arxiv.org/abs/2407.10759),
// Voxtral (https://arxiv.org/abs/2507.13264), Audio Flamingo 3 (https://arxiv.org/abs/2507.08128) and others: a
// projection, or two with an activation, of frames or of several stacked frames, with the names of their checkpoints.
// That of Ultravox (https://github.com/fixie-ai/ultravox) has norms before the first layer, and before or after the
// second.
#include <torch/library.h>

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/silu.h>

#include "core/nn/linear.h"
#include "core/nn/rms_norm.h"

namespace voxtorch::models {

using at::Tensor;

namespace {

class AudioConnector : public Block {
 public:
  AudioConnector(const ModuleOptions& options, const Config& c)
      : Block("AudioConnector", options),
        stacked_(c.integer("stacked_frames", 1)),
        width_(c.integer("input_size")),
        gated_(c.text("activation", "gelu") == "swiglu"),
        activation_(nn::activation(gated_ ? "silu" : c.text("activation", "gelu"))) {
    TORCH_CHECK(stacked_ > 0, "stacked_frames must be positive, got ", stacked_);
    const int64_t hidden = c.integer("hidden_size"), between = c.integer("intermediate_size", hidden);
    const bool bias = c.boolean("bias", true);
    const double std = c.number("initializer_range", 0.02);
    const std::string norms = c.text("norms", "none");
    TORCH_CHECK(norms == "none" || norms == "middle" || norms == "end", "norms must be none, middle or end, got ",
                norms);
    TORCH_CHECK(!gated_ || between % 2 == 0, "intermediate_size must be even with swiglu, got ", between);
    const int64_t middle = gated_ ? between / 2 : between;
    const auto norm = [&](const char* name, int64_t dim) {
      return child<nn::RmsNorm>(name, dim, 1e-6, 0.0, c.number("norm_init", 1));
    };
    if (c.boolean("has_activation", true)) {
      if (norms != "none") before_ = norm("ln_pre", width_ * stacked_);
      up_ = child<nn::Linear>("linear_1", width_ * stacked_, between, bias, std);
      if (norms == "middle") middle_ = norm("ln_mid", middle);
      down_ = child<nn::Linear>("linear_2", middle, hidden, bias, std);
      if (norms == "end") after_ = norm("ln_post", hidden);
    } else {
      down_ = child<nn::Linear>("linear", width_ * stacked_, hidden, bias, std);
    }
  }

  Tensor forward(const Tensor& states) const {
    TORCH_CHECK(states.dim() == 3 && states.size(2) == width_, "states must be [windows, frames, ", width_, "], got ",
                states.sizes());
    const int64_t tokens = (states.size(1) + stacked_ - 1) / stacked_, missing = tokens * stacked_ - states.size(1);
    TORCH_CHECK(missing == 0 || before_ != nullptr, "frames must be a multiple of ", stacked_, ", got ",
                states.size(1));
    const Tensor padded = missing == 0 ? states : at::constant_pad_nd(states, {0, 0, 0, missing});
    const Tensor input =
        stacked_ == 1
            ? states
            : padded.reshape({states.size(0), tokens, stacked_ * width_});  // [windows, tokens, stacked * width]
    return watched(states, normed(after_, down_->forward(between(normed(before_, input)))));
  }

 private:
  static Tensor normed(const nn::RmsNorm* norm, const Tensor& x) {
    return norm == nullptr ? x : norm->forward(x).first;
  }

  // Input of the last layer.
  Tensor between(const Tensor& input) const {
    if (up_ == nullptr) return input;
    if (!gated_) return normed(middle_, up_->forward(input, activation_));
    const std::vector<Tensor> halves = up_->forward(input).chunk(2, -1);
    return normed(middle_, at::silu(halves[1]) * halves[0]);
  }

  const int64_t stacked_, width_;
  const bool gated_;
  const nn::Activation activation_;
  const nn::Linear *up_ = nullptr, *down_ = nullptr;
  const nn::RmsNorm *before_ = nullptr, *middle_ = nullptr, *after_ = nullptr;
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

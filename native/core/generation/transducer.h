// What the searches of transducers, RNN-T and TDT, share: arguments, prediction network and joint network.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace voxtorch::generation {

using Ids = std::vector<int64_t>;

#define VOXTORCH_TRANSDUCER_SEARCH                                                                              \
  const at::Tensor &encoder, const at::Tensor &lengths, const at::Tensor &embedding, at::TensorList lstm,       \
      const at::Tensor &projection, const std::optional<at::Tensor>&projection_bias, const at::Tensor &head,    \
      const std::optional<at::Tensor>&head_bias, int64_t blank, at::IntArrayRef durations, int64_t max_symbols, \
      std::string_view activation
#define VOXTORCH_TRANSDUCER_SEARCH_ARGUMENTS                                                                      \
  encoder, lengths, embedding, lstm, projection, projection_bias, head, head_bias, blank, durations, max_symbols, \
      activation

// A checked call.
struct Transducer {
  // Throws a sentence about the first argument that does not fit.
  Transducer(const char* name, VOXTORCH_TRANSDUCER_SEARCH);

  int64_t batch() const { return static_cast<int64_t>(lengths.size()); }
  int64_t length(int64_t row) const { return lengths[static_cast<size_t>(row)]; }
  int64_t kinds() const { return static_cast<int64_t>(durations.size()); }
  int64_t vocabulary() const { return head.size(0) - kinds(); }
  at::Tensor on_device(const Ids& values) const;
  // The joint network for pairs of a frame of a row and an output of the prediction network, [pairs, dim]: logits
  // [pairs, vocabulary + durations].
  at::Tensor joint(const Ids& rows, const Ids& frames, const at::Tensor& predicted) const;

  at::Tensor frames;  // [batch * frames, dim]
  Ids lengths;
  at::Tensor embedding;          // [vocabulary, dim]
  std::vector<at::Tensor> lstm;  // of each layer: input to gates, state to gates, and their biases
  at::Tensor projection;         // [dim, dim]
  std::optional<at::Tensor> projection_bias;
  at::Tensor head;  // [vocabulary + durations, dim]
  std::optional<at::Tensor> head_bias;
  int64_t blank, max_symbols;
  Ids durations;  // none: RNN-T
  std::string activation;

 private:
  int64_t width_;  // frames of the padded batch
};

// States of the prediction network in numbered places; each has read the tokens of a hypothesis.
class Predictor {
 public:
  // All places have read the blank.
  Predictor(const Transducer& transducer, int64_t places);
  // The states of `to` become those of `from` after a token each.
  void read(const Ids& from, const Ids& tokens, const Ids& to);
  at::Tensor of(const Ids& places) const;

 private:
  const Transducer& t_;
  std::vector<at::Tensor> hidden_, cell_;
  at::Tensor output_;  // [places, dim]
};

}  // namespace voxtorch::generation

// What the implementations of transducer_loss share on ATen's side.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace voxtorch::kernels {

struct TransducerInputs {
  at::Tensor encoder;                               // [batch, frames, dim]
  at::Tensor predictor;                             // [batch, targets + 1, dim]
  at::Tensor weight;                                // [vocabulary + durations, dim]
  at::Tensor bias;                                  // [vocabulary + durations]; undefined: none
  std::vector<int64_t> frames, targets, durations;  // targets of all rows, one after the other; no durations: RNN-T
  std::vector<int64_t> first_targets;               // [batch + 1], in targets
  int64_t blank;
  double sigma;  // subtracted from the log probability of each token
  std::string activation;
  int64_t chunk;  // pairs whose logits exist at a time; 0: chosen

  int64_t batch() const { return encoder.size(0); }
  int64_t kinds() const { return static_cast<int64_t>(durations.size()); }
  int64_t vocabulary() const { return weight.size(0) - kinds(); }
  int64_t frames_of(int64_t row) const { return frames[static_cast<size_t>(row)]; }
  int64_t first_target(int64_t row) const { return first_targets[static_cast<size_t>(row)]; }
  int64_t labels_of(int64_t row) const { return first_target(row + 1) - first_target(row); }
};

#define VOXTORCH_TRANSDUCER_PARAMETERS                                                                               \
  const at::Tensor &encoder, const at::Tensor &predictor, const at::Tensor &weight,                                  \
      const std::optional<at::Tensor>&bias, at::IntArrayRef frames, at::IntArrayRef labels, at::IntArrayRef targets, \
      int64_t blank, at::IntArrayRef durations, double sigma, std::string_view activation, int64_t chunk
#define VOXTORCH_TRANSDUCER_ARGUMENTS \
  encoder, predictor, weight, bias, frames, labels, targets, blank, durations, sigma, activation, chunk

// Throws a sentence about the first argument that does not fit.
TransducerInputs transducer_inputs(VOXTORCH_TRANSDUCER_PARAMETERS);

void check_transducer_grad(const at::Tensor& grad, const TransducerInputs& in);

// The gradient in the dtype of its input; undefined where it is.
at::Tensor in_dtype_of(const at::Tensor& grad, const at::Tensor& input);

// The losses, and what backward reads besides the inputs.
using TransducerOutput = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
// Of encoder, predictor, weight and bias; undefined where the mask has none.
using TransducerGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

}  // namespace voxtorch::kernels

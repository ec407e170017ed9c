// Zero mean and unit variance over each clip, as wav2vec 2.0 models read it.
#include <ATen/TensorOperators.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <cmath>
#include <optional>

#include "core/audio/spectrum.h"
#include "core/runtime/transfers.h"

namespace voxtorch::audio {
namespace {

using at::Tensor;

Tensor normalize_audio(const Tensor& samples, const std::optional<Tensor>& attention_mask, double epsilon,
                       double padding_value) {
  const char* op = "normalize_audio";
  TORCH_CHECK(epsilon >= 0 && std::isfinite(epsilon), op, ": epsilon must not be below zero, got ", epsilon);
  const Tensor clips = as_batch(op, samples);
  if (!attention_mask.has_value() || !attention_mask->defined()) {
    const Tensor centred = clips - clips.mean(1, true);
    return unbatch(centred / (centred.square().mean(1, true) + epsilon).sqrt(), samples);
  }
  TORCH_CHECK(attention_mask->sizes() == samples.sizes(), op, ": attention_mask must have the shape of samples ",
              samples.sizes(), ", got ", attention_mask->sizes());
  const Tensor mask = upload(*attention_mask, clips.device()).reshape(clips.sizes()).to(at::kBool);
  const Tensor count = mask.sum(1, true).clamp_min(1);
  const Tensor mean = clips.masked_fill(~mask, 0).sum(1, true) / count;
  const Tensor centred = (clips - mean).masked_fill(~mask, 0);
  const Tensor normalized = centred / (centred.square().sum(1, true) / count + epsilon).sqrt();
  return unbatch(normalized.masked_fill(~mask, padding_value), samples);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // samples [..., n], attention_mask of the same shape: 1 for samples, 0 for padding.
  m.def(
      "normalize_audio(Tensor samples, Tensor? attention_mask=None, *, float epsilon=1e-7, float padding_value=0.) -> "
      "Tensor",
      normalize_audio);
}

}  // namespace voxtorch::audio

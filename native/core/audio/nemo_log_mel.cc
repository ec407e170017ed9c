// The log-mel features of NeMo's AudioToMelSpectrogramPreprocessor, with which Parakeet and Canary were trained, as
// transformers' ParakeetFeatureExtractor computes them.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/sub.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <cmath>
#include <optional>

#include "core/audio/mel_filters.h"
#include "core/audio/spectrum.h"
#include "core/runtime/transfers.h"

namespace voxtorch::audio {
namespace {

using at::Tensor;

std::tuple<Tensor, Tensor> nemo_log_mel(const Tensor& samples, const std::optional<Tensor>& given_lengths,
                                        double sample_rate, int64_t n_mels, int64_t n_fft, int64_t hop_length,
                                        int64_t win_length, double preemphasis) {
  const char* op = "nemo_log_mel";
  constexpr double kGuard = 1.0 / (1 << 24);  // added before the logarithm
  constexpr double kEpsilon = 1e-5;           // added to the standard deviation
  TORCH_CHECK(n_fft >= 2 && n_fft <= (1 << 24) && n_fft % 2 == 0, op, ": n_fft must be even and from 2 to 2^24, got ",
              n_fft);
  TORCH_CHECK(win_length >= 1 && win_length <= n_fft, op, ": win_length must be from 1 to n_fft ", n_fft, ", got ",
              win_length);
  TORCH_CHECK(hop_length >= 1 && hop_length <= (1 << 24), op, ": hop_length must be from 1 to 2^24, got ", hop_length);
  TORCH_CHECK(preemphasis >= 0 && preemphasis <= 1, op, ": preemphasis must be from 0 to 1, got ", preemphasis);
  Tensor signal = as_batch(op, samples);
  const int64_t batch = signal.size(0), count = signal.size(1);

  Tensor lengths;  // int64 [batch], on the CPU
  if (given_lengths.has_value()) {
    TORCH_CHECK(given_lengths->numel() == batch && !given_lengths->is_floating_point(), op,
                ": lengths must have an integer for each of the ", batch, " clips, got ", given_lengths->scalar_type(),
                " ", given_lengths->sizes());
    lengths = given_lengths->to(at::kCPU, at::kLong).reshape({batch});
  } else {
    lengths = at::arange(1, at::TensorOptions().dtype(at::kLong)).add(count).expand({batch}).contiguous();
  }
  for (int64_t i = 0; i < batch; ++i) {
    const int64_t length = lengths.const_data_ptr<int64_t>()[i];
    // The standard deviation needs two frames.
    TORCH_CHECK(length >= 2 * hop_length && length <= count, op, ": a clip must have from ", 2 * hop_length,
                " samples, two frames, to the ", count, " of its row, got ", length, "; pad it or leave it out");
  }
  const auto before = [&](int64_t steps, const Tensor& ends) {  // [batch, steps], true for what is valid
    return upload(at::arange(steps, ends.options()).unsqueeze(0) < ends.unsqueeze(1), signal.device());
  };

  if (preemphasis > 0) {
    signal = at::cat(
        {signal.narrow(1, 0, 1), at::sub(signal.narrow(1, 1, count - 1), signal.narrow(1, 0, count - 1), preemphasis)},
        1);
  }
  signal = signal.masked_fill(before(count, lengths).logical_not(), 0);
  SpectrumOptions options;
  options.n_fft = n_fft;
  options.hop = hop_length;
  const SpectrumTable filters = mel_filters(n_fft, n_mels, sample_rate, 0, sample_rate / 2, "slaney", "slaney");
  const SpectrumTable window = window_function("hann", win_length, /*periodic=*/false, 0.42, n_fft);
  const Tensor energies =
      spectral_energies(at::constant_pad_nd(signal, {n_fft / 2, n_fft / 2}), window, filters, options);
  const Tensor mel = (energies + kGuard).log();  // [batch, frames, mels]

  const Tensor frames = lengths.floor_divide(hop_length);
  const Tensor valid = before(mel.size(1), frames), padding = valid.logical_not().unsqueeze(-1);
  const Tensor divisor = upload(frames, mel.device()).to(mel.scalar_type()).view({-1, 1, 1});
  const Tensor mean = mel.masked_fill(padding, 0).sum(1, true) / divisor;
  const Tensor centred = (mel - mean).masked_fill(padding, 0);
  const Tensor deviation = (centred.square().sum(1, true) / (divisor - 1)).sqrt();
  std::vector<int64_t> shape = samples.sizes().slice(0, samples.dim() - 1).vec();
  shape.push_back(valid.size(1));
  return {unbatch(centred / (deviation + kEpsilon), samples), valid.view(shape)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // samples [..., n], lengths [...] of valid samples -> features [..., frames, mels], attention_mask bool [...,
  // frames].
  m.def(
      "nemo_log_mel(Tensor samples, Tensor? lengths=None, *, float sample_rate=16000., int n_mels=80, int n_fft=512, "
      "int "
      "hop_length=160, int win_length=400, float preemphasis=0.97) -> (Tensor input_features, Tensor attention_mask)",
      nemo_log_mel);
}

}  // namespace voxtorch::audio

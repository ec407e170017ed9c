// Mel spectrograms: the general one, and Whisper's (Radford et al., "Robust Speech Recognition via Large-Scale Weak
// Supervision", 2022).
#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/reflection_pad1d.h>
#include <ATen/ops/replication_pad1d.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <cmath>
#include <optional>

#include "core/audio/mel_filters.h"
#include "core/audio/spectrum.h"

namespace voxtorch::audio {
namespace {

using at::Tensor;

// signal [batch, samples] with `padding` more at each end.
Tensor padded(const char* op, const Tensor& signal, int64_t padding, std::string_view mode) {
  if (padding == 0) return signal;
  if (mode == "constant") return at::constant_pad_nd(signal, {padding, padding});
  if (mode == "replicate") {
    TORCH_CHECK(signal.size(1) > 0, op, ": there are no samples to repeat at the ends");
    return at::replication_pad1d(signal, {padding, padding});
  }
  TORCH_CHECK(mode == "reflect", op, ": pad_mode must be 'reflect', 'constant' or 'replicate', got '", mode, "'");
  TORCH_CHECK(signal.size(1) > padding, op, ": reflecting ", padding, " samples at each end needs more than ", padding,
              " samples, got ", signal.size(1), "; pad the clip first");
  return at::reflection_pad1d(signal, {padding, padding});
}

void check_transform(const char* op, int64_t n_fft, int64_t win_length, int64_t hop, int64_t padding) {
  TORCH_CHECK(n_fft >= 2 && n_fft <= (1 << 24), op, ": n_fft must be between 2 and 2^24, got ", n_fft);
  TORCH_CHECK(win_length >= 1 && win_length <= n_fft, op, ": win_length must be between 1 and n_fft ", n_fft, ", got ",
              win_length);
  TORCH_CHECK(hop >= 1, op, ": hop_length must be at least 1, got ", hop);
  TORCH_CHECK(padding >= 0 && padding <= (int64_t{1} << 40), op, ": padding must not be below zero, got ", padding);
}

Tensor mel_spectrogram(const Tensor& samples, double sample_rate, int64_t n_fft, int64_t hop_length,
                       std::optional<int64_t> win_length, std::string_view window, std::optional<int64_t> padding,
                       std::string_view pad_mode, std::optional<int64_t> n_mels, double f_min,
                       std::optional<double> f_max, std::string_view mel_scale, std::string_view norm, bool power,
                       double magnitude_epsilon, std::string_view log, double floor) {
  const char* op = "mel_spectrogram";
  const int64_t edge = padding.value_or(n_fft / 2);
  check_transform(op, n_fft, win_length.value_or(n_fft), hop_length, edge);
  TORCH_CHECK(magnitude_epsilon >= 0 && std::isfinite(magnitude_epsilon), op,
              ": magnitude_epsilon must not be below zero, got ", magnitude_epsilon);
  TORCH_CHECK(log == "none" || log == "ln" || log == "log10", op, ": log must be 'none', 'ln' or 'log10', got '", log,
              "'");
  TORCH_CHECK(log == "none" || floor > 0, op, ": floor must be above zero for a logarithm, got ", floor);
  SpectrumOptions options;
  options.n_fft = n_fft;
  options.hop = hop_length;
  options.power = power;
  options.magnitude_epsilon = magnitude_epsilon;
  options.bands_first = true;
  SpectrumTable filters;
  if (n_mels.has_value()) {
    filters = mel_filters(n_fft, *n_mels, sample_rate, f_min, f_max.value_or(sample_rate / 2), mel_scale, norm);
  }
  const Tensor signal = padded(op, as_batch(op, samples), edge, pad_mode);
  const SpectrumTable shape = window_function(window, win_length.value_or(n_fft), /*periodic=*/true, 0.42, n_fft);
  Tensor energies = spectral_energies(signal, shape, filters, options);
  if (log != "none") {
    energies.clamp_min_(floor);
    log == "ln" ? energies.log_() : energies.log10_();
  }
  return unbatch(energies, samples);
}

Tensor whisper_log_mel(const Tensor& samples, int64_t n_mels, std::optional<int64_t> length) {
  const char* op = "whisper_log_mel";
  constexpr int64_t kFft = 400;
  constexpr int64_t kHop = 160;
  Tensor signal = as_batch(op, samples);
  if (length.has_value()) {
    TORCH_CHECK(*length >= kFft && *length <= (int64_t{1} << 40), op, ": length must be at least ", kFft, ", got ",
                *length);
    signal = at::constant_pad_nd(signal, {0, *length - signal.size(1)});
  }
  TORCH_CHECK(signal.size(1) >= kFft, op, ": a clip must have at least ", kFft, " samples, got ", signal.size(1),
              "; pad it");
  SpectrumOptions options;
  options.n_fft = kFft;
  options.hop = kHop;
  options.bands_first = true;
  const SpectrumTable filters = mel_filters(kFft, n_mels, 16000, 0, 8000, "slaney", "slaney");
  // One sample less at the end is one frame less where the last would begin: Whisper drops it.
  Tensor edges = padded(op, signal, kFft / 2, "reflect");
  edges = edges.narrow(1, 0, (signal.size(1) / kHop - 1) * kHop + kFft);
  Tensor mel =
      spectral_energies(edges, window_function("hann", kFft, true), filters, options);  // [batch, mels, frames]
  mel.clamp_min_(1e-10).log10_();
  mel = at::maximum(mel, mel.amax({1, 2}, true) - 8.0);
  return unbatch(at::add(at::scalar_tensor(1, mel.options().device(at::kCPU)), mel, 0.25), samples);  // (x + 4) / 4
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // samples [..., n] -> [..., bands, frames].
  m.def(
      "mel_spectrogram(Tensor samples, float sample_rate, *, int n_fft=400, int hop_length=160, int? win_length=None, "
      "str window='hann', int? padding=None, str pad_mode='reflect', int? n_mels=None, float f_min=0., "
      "float? f_max=None, str mel_scale='slaney', str norm='slaney', bool power=True, float magnitude_epsilon=0., "
      "str log='none', float floor=1e-10) -> Tensor",
      mel_spectrogram);
  // samples [..., n] at 16 kHz -> [..., n_mels, n / 160].
  m.def("whisper_log_mel(Tensor samples, *, int n_mels=80, int? length=480000) -> Tensor", whisper_log_mel);
}

}  // namespace voxtorch::audio

// Kaldi's filter bank features (Povey et al., "The Kaldi Speech Recognition Toolkit", 2011), as compute-fbank-feats and
// torchaudio.compliance.kaldi.fbank define them.
#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>
#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sub.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <optional>

#include "core/audio/mel_filters.h"
#include "core/audio/spectrum.h"
#include "core/runtime/transfers.h"

namespace voxtorch::audio {
namespace {

using at::Tensor;

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

// Without snipping, frame i is centered on the middle of its hop and the ends are mirrored, the end sample twice.
Tensor mirrored_edges(const char* op, const Tensor& signal, int64_t length, int64_t hop) {
  const int64_t samples = signal.size(1);
  const int64_t frames = (samples + hop / 2) / hop;
  if (frames == 0) return signal.narrow(1, 0, 0);
  const int64_t left = length / 2 - hop / 2;
  const int64_t right = (frames - 1) * hop + length - left - samples;
  TORCH_CHECK(left <= samples && right <= samples, op, ": without snip_edges a clip must be longer than the ",
              std::max(left, right), " samples that are mirrored, got ", samples);
  Tensor result = signal;
  if (right > 0) result = at::cat({result, signal.narrow(1, samples - right, right).flip(1)}, 1);
  if (left > 0) return at::cat({signal.narrow(1, 0, left).flip(1), result}, 1);
  return result.narrow(1, -left, (frames - 1) * hop + length);
}

// Where the generator is, so that a seed of the CPU's gives the same noise on every device.
Tensor noise(const Tensor& like, const std::optional<at::Generator>& generator) {
  const c10::Device device = generator.has_value() && generator->defined() ? generator->device() : like.device();
  return upload(at::randn(like.sizes(), generator, like.options().device(device)), like.device());
}

Tensor log_energy(const Tensor& frames, double floor) {
  const Tensor energy = frames.square().sum(-1, true).clamp_min(kEpsilon).log();
  return floor == 0 ? energy : energy.clamp_min(std::log(floor));
}

Tensor kaldi_fbank(const Tensor& samples, double sample_rate, int64_t n_mels, double frame_length, double frame_shift,
                   std::string_view window, double blackman_coefficient, double preemphasis, bool remove_dc,
                   bool snip_edges, bool round_to_power_of_two, double f_min, double f_max, double dither,
                   std::optional<at::Generator> generator, bool use_energy, bool raw_energy, double energy_floor,
                   bool htk_compat, bool log, bool power, bool subtract_mean, double vtln_low, double vtln_high,
                   double vtln_warp, double min_duration) {
  const char* op = "kaldi_fbank";
  TORCH_CHECK(std::isfinite(sample_rate) && sample_rate > 0 && sample_rate <= 1e9, op,
              ": sample_rate must be above zero, got ", sample_rate);
  TORCH_CHECK(frame_length > 0 && frame_length <= 1e5 && frame_shift > 0 && frame_shift <= 1e5, op,
              ": frame_length and frame_shift must be between 0 and 100000 ms, got ", frame_length, " and ",
              frame_shift);
  TORCH_CHECK(preemphasis >= 0 && preemphasis <= 1, op, ": preemphasis must be between 0 and 1, got ", preemphasis);
  TORCH_CHECK(dither >= 0 && std::isfinite(dither), op, ": dither must not be below zero, got ", dither);
  TORCH_CHECK(energy_floor >= 0, op, ": energy_floor must not be below zero, got ", energy_floor);
  const int64_t length = static_cast<int64_t>(sample_rate * frame_length * 0.001);
  const int64_t hop = static_cast<int64_t>(sample_rate * frame_shift * 0.001);
  TORCH_CHECK(length >= 2 && length <= (1 << 23), op, ": a frame must have between 2 and 2^23 samples, got ", length);
  TORCH_CHECK(hop >= 1, op, ": frame_shift must be at least one sample, got ", frame_shift, " ms at ", sample_rate,
              " Hz");
  int64_t n_fft = length;
  if (round_to_power_of_two) {
    for (n_fft = 2; n_fft < length;) n_fft *= 2;
  }
  TORCH_CHECK(n_fft % 2 == 0, op, ": a frame of ", length,
              " samples is odd; use round_to_power_of_two or change frame_length");
  SpectrumOptions options;
  options.n_fft = n_fft;
  options.hop = hop;
  options.remove_dc = remove_dc;
  options.preemphasis = preemphasis;
  options.power = power;
  const SpectrumTable filters =
      kaldi_mel_filters(n_fft, n_mels, sample_rate, f_min, f_max, {vtln_low, vtln_high, vtln_warp});
  const SpectrumTable shape = window_function(window, length, /*periodic=*/false, blackman_coefficient);

  Tensor signal = as_batch(op, samples);
  if (static_cast<double>(signal.size(1)) < min_duration * sample_rate) {
    return unbatch(signal.new_zeros({signal.size(0), 0, n_mels + (use_energy ? 1 : 0)}), samples);
  }
  TORCH_CHECK(signal.size(1) >= length, op, ": a clip must have at least the ", length, " samples of a frame, got ",
              signal.size(1), "; pad it");
  if (!snip_edges) signal = mirrored_edges(op, signal, length, hop);

  Tensor mel;
  if (dither == 0 && !use_energy) {
    mel = spectral_energies(signal, shape, filters, options);
    if (log) mel.clamp_min_(kEpsilon).log_();
  } else {
    Tensor frames = signal.unfold(-1, length, hop);  // [batch, frames, length]
    if (dither != 0) frames = at::add(frames, noise(frames, generator), dither);
    if (remove_dc) frames = without_dc(frames);
    mel = energies_of_frames(frames, shape, filters, options);
    if (log) mel = mel.clamp_min(kEpsilon).log();
    if (use_energy) {
      if (!raw_energy) {
        if (preemphasis != 0) {
          const Tensor before = at::cat({frames.narrow(-1, 0, 1), frames.narrow(-1, 0, length - 1)}, -1);
          frames = at::sub(frames, before, preemphasis);
        }
        frames = frames * shape.like(frames);
      }
      const Tensor energy = log_energy(frames, energy_floor);
      mel = htk_compat ? at::cat({mel, energy}, -1) : at::cat({energy, mel}, -1);
    }
  }
  if (subtract_mean) mel = mel - mel.mean(1, true);
  return unbatch(mel, samples);  // [..., frames, bands]
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "kaldi_fbank(Tensor samples, *, float sample_rate=16000., int n_mels=23, float frame_length=25., "
      "float frame_shift=10., str window='povey', float blackman_coefficient=0.42, float preemphasis=0.97, "
      "bool remove_dc=True, bool snip_edges=True, bool round_to_power_of_two=True, float f_min=20., float f_max=0., "
      "float dither=0., Generator? generator=None, bool use_energy=False, bool raw_energy=True, float energy_floor=1., "
      "bool htk_compat=False, bool log=True, bool power=True, bool subtract_mean=False, float vtln_low=100., "
      "float vtln_high=-500., float vtln_warp=1., float min_duration=0.) -> Tensor",
      kaldi_fbank);
}

}  // namespace voxtorch::audio

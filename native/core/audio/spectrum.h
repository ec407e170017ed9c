// From samples to the energies of frequency bins or bands: what log-mel and Kaldi features share.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace voxtorch::audio {

struct SpectrumOptions {
  int64_t n_fft = 400;
  int64_t hop = 160;
  bool remove_dc = false;  // subtract each frame's mean
  double preemphasis = 0;  // x[i] - preemphasis * x[i - 1] within a frame; the first sample is its own predecessor
  bool power = true;       // |X|², else sqrt(|X|² + magnitude_epsilon)
  double magnitude_epsilon = 0;
  bool bands_first = false;  // [batch, bands, frames] instead of [batch, frames, bands]
};

// A window or filters, float64 on the CPU, under a key (device_tables.h) by which devices keep their copies.
struct SpectrumTable {
  std::string key;
  at::Tensor values;  // undefined: no filters

  // As numbers of like's dtype on its device; `purpose` tells apart what is made of one table.
  at::Tensor like(const at::Tensor& like, const std::string& purpose = "",
                  const std::function<at::Tensor(const at::Tensor&)>& derive = nullptr) const;
};

// A window of `length`: 'hann', 'hamming', 'povey', 'blackman' or 'rectangular'. Periodic ones are symmetric ones of
// length + 1 without the last value. One that is shorter than `width` stands in its middle, with zeros around it.
SpectrumTable window_function(std::string_view name, int64_t length, bool periodic, double blackman_coefficient = 0.42,
                              int64_t width = 0);

// signal [batch, samples], float32 or float64 and already padded; window [length], at most n_fft long, zeros fill the
// rest of a frame; filters [bands, n_fft / 2 + 1], or none for the bins themselves. Frames that do not fit are left
// out. On the CPU float32 without gradients takes a fused loop, in float64 inside; all else is made of differentiable
// operators in the signal's dtype, on its device, whatever autocast says.
at::Tensor spectral_energies(const at::Tensor& signal, const SpectrumTable& window, const SpectrumTable& filters,
                             const SpectrumOptions& options);

// The parts that callers with frames of their own need. frames [batch, frames, length].
at::Tensor without_dc(const at::Tensor& frames);
at::Tensor energies_of_frames(const at::Tensor& frames, const SpectrumTable& window, const SpectrumTable& filters,
                              const SpectrumOptions& options);

// samples [..., n] as [batch, n] of a floating dtype that a spectrum is computed in; throws where there is nothing to
// compute. `op` names the operator in the sentence.
at::Tensor as_batch(const char* op, const at::Tensor& samples);
// The leading sizes of `samples` in place of the batch.
at::Tensor unbatch(const at::Tensor& result, const at::Tensor& samples);

}  // namespace voxtorch::audio

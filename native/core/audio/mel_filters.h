// Triangular filters that sum the bins of a spectrum into mel bands.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/audio/spectrum.h"

namespace voxtorch::audio {

// [bands, n_fft / 2 + 1]. `scale` is 'slaney' or 'htk', `norm` 'slaney' (area 2 / width) or 'none'
// (peak 1). The triangles' sides are straight lines over frequency.
SpectrumTable mel_filters(int64_t n_fft, int64_t bands, double sample_rate, double f_min, double f_max,
                          std::string_view scale, std::string_view norm);

// Warping of the frequency axis for vocal tract length normalization; a factor of 1 leaves it alone.
struct Vtln {
  double low = 100;
  double high = -500;  // below zero: as far below the Nyquist frequency
  double warp = 1;
};

// As Kaldi: the same shape, but the sides are straight lines over mel, and the Nyquist bin has no weight. An `f_max` of
// zero or less counts from the Nyquist frequency.
SpectrumTable kaldi_mel_filters(int64_t n_fft, int64_t bands, double sample_rate, double f_min, double f_max,
                                const Vtln& vtln);

}  // namespace voxtorch::audio

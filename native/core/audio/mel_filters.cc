#include "core/audio/mel_filters.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>

#include "core/runtime/device_tables.h"

namespace voxtorch::audio {
namespace {

using at::Tensor;

// Slaney's Auditory Toolbox: linear below 1 kHz, logic above.
constexpr double kLinearStep = 200.0 / 3;
constexpr double kLogStart = 1000;
constexpr double kLogStartMel = kLogStart / kLinearStep;
const double kLogStep = std::log(6.4) / 27;

double slaney_mel(double hertz) {
  return hertz < kLogStart ? hertz / kLinearStep : kLogStartMel + std::log(hertz / kLogStart) / kLogStep;
}

double slaney_hertz(double mel) {
  return mel < kLogStartMel ? mel * kLinearStep : kLogStart * std::exp(kLogStep * (mel - kLogStartMel));
}

double htk_mel(double hertz) { return 2595 * std::log10(1 + hertz / 700); }
double htk_hertz(double mel) { return 700 * (std::pow(10, mel / 2595) - 1); }

double kaldi_mel(double hertz) { return 1127 * std::log(1 + hertz / 700); }
double kaldi_hertz(double mel) { return 700 * (std::exp(mel / 1127) - 1); }

void check_sizes(const char* op, int64_t n_fft, int64_t bands, double sample_rate) {
  TORCH_CHECK(n_fft >= 2 && n_fft <= (1 << 24), op, ": n_fft must be between 2 and 2^24, got ", n_fft);
  TORCH_CHECK(bands >= 1 && bands <= (1 << 16), op, ": n_mels must be between 1 and 65536, got ", bands);
  TORCH_CHECK(bands <= (int64_t{1} << 28) / (n_fft / 2 + 1), op, ": ", bands, " filters over ", n_fft / 2 + 1,
              " bins are too many");
  TORCH_CHECK(std::isfinite(sample_rate) && sample_rate > 0, op, ": sample_rate must be above zero, got ", sample_rate);
}

// Kaldi's piecewise linear warp: the ends stay, the middle is scaled by 1 / factor.
double warped(double hertz, double f_min, double f_max, double low, double high, double factor) {
  if (hertz < f_min || hertz > f_max) return hertz;
  const double l = low * std::max(1.0, factor);
  const double h = high * std::min(1.0, factor);
  const double scale = 1 / factor;
  if (hertz < l) return f_min + (scale * l - f_min) / (l - f_min) * (hertz - f_min);
  if (hertz < h) return scale * hertz;
  return f_max + (f_max - scale * h) / (f_max - h) * (hertz - f_max);
}

Tensor make_mel_filters(int64_t n_fft, int64_t bands, double sample_rate, double f_min, double f_max,
                        std::string_view scale, std::string_view norm) {
  const char* op = "mel_filter_bank";
  check_sizes(op, n_fft, bands, sample_rate);
  TORCH_CHECK(f_min >= 0 && f_min < f_max && f_max <= sample_rate / 2, op,
              ": the band must lie within 0 and half the sample rate, ", sample_rate / 2, " Hz, got ", f_min, " to ",
              f_max);
  TORCH_CHECK(scale == "slaney" || scale == "htk", op, ": mel_scale must be 'slaney' or 'htk', got '", scale, "'");
  TORCH_CHECK(norm == "slaney" || norm == "none", op, ": norm must be 'slaney' or 'none', got '", norm, "'");
  const bool slaney = scale == "slaney";
  const double low = slaney ? slaney_mel(f_min) : htk_mel(f_min);
  const double high = slaney ? slaney_mel(f_max) : htk_mel(f_max);
  const auto edge = [&](int64_t i) {
    const double mel = low + (high - low) * static_cast<double>(i) / static_cast<double>(bands + 1);
    return slaney ? slaney_hertz(mel) : htk_hertz(mel);
  };
  const int64_t bins = n_fft / 2 + 1;
  const Tensor filters = at::zeros({bands, bins}, at::TensorOptions(at::kDouble));
  double* weights = filters.mutable_data_ptr<double>();
  for (int64_t band = 0; band < bands; ++band) {
    const double left = edge(band), centre = edge(band + 1), right = edge(band + 2);
    const double height = norm == "slaney" ? 2 / (right - left) : 1;
    for (int64_t bin = 0; bin < bins; ++bin) {
      const double hertz = sample_rate * static_cast<double>(bin) / static_cast<double>(n_fft);
      const double slope = std::min((hertz - left) / (centre - left), (right - hertz) / (right - centre));
      weights[band * bins + bin] = height * std::max(0.0, slope);
    }
  }
  return filters;
}

Tensor make_kaldi_mel_filters(int64_t n_fft, int64_t bands, double sample_rate, double f_min, double f_max,
                              const Vtln& vtln) {
  const char* op = "kaldi_mel_filter_bank";
  check_sizes(op, n_fft, bands, sample_rate);
  TORCH_CHECK(bands > 3, op, ": n_mels must be at least 4, got ", bands);
  const double nyquist = sample_rate / 2;
  if (f_max <= 0) f_max += nyquist;
  TORCH_CHECK(f_min >= 0 && f_min < f_max && f_max <= nyquist, op,
              ": the band must lie within 0 and half the sample rate, ", nyquist, " Hz, got ", f_min, " to ", f_max);
  const double vtln_high = vtln.high < 0 ? vtln.high + nyquist : vtln.high;
  const bool warps = vtln.warp != 1;
  TORCH_CHECK(!warps || (vtln.warp > 0 && std::isfinite(vtln.warp)), op, ": vtln_warp must be above zero, got ",
              vtln.warp);
  TORCH_CHECK(!warps || (f_min < vtln.low && vtln.low < vtln_high && vtln_high < f_max), op, ": vtln_low ", vtln.low,
              " and vtln_high ", vtln_high, " must lie in this order within ", f_min, " and ", f_max);
  TORCH_CHECK(!warps || (vtln.low * std::max(1.0, vtln.warp) < vtln_high * std::min(1.0, vtln.warp)), op,
              ": vtln_warp ", vtln.warp, " leaves nothing between vtln_low and vtln_high");
  const double low = kaldi_mel(f_min);
  const double step = (kaldi_mel(f_max) - low) / static_cast<double>(bands + 1);
  const auto edge = [&](int64_t i) {
    const double mel = low + static_cast<double>(i) * step;
    return warps ? kaldi_mel(warped(kaldi_hertz(mel), f_min, f_max, vtln.low, vtln_high, vtln.warp)) : mel;
  };
  const int64_t bins = n_fft / 2 + 1;
  const Tensor filters = at::zeros({bands, bins}, at::TensorOptions(at::kDouble));
  double* weights = filters.mutable_data_ptr<double>();
  for (int64_t band = 0; band < bands; ++band) {
    const double left = edge(band), centre = edge(band + 1), right = edge(band + 2);
    for (int64_t bin = 0; bin < n_fft / 2; ++bin) {
      const double mel = kaldi_mel(sample_rate * static_cast<double>(bin) / static_cast<double>(n_fft));
      const double slope = std::min((mel - left) / (centre - left), (right - mel) / (right - centre));
      weights[band * bins + bin] = std::max(0.0, slope);
    }
  }
  return filters;
}

}  // namespace

SpectrumTable mel_filters(int64_t n_fft, int64_t bands, double sample_rate, double f_min, double f_max,
                          std::string_view scale, std::string_view norm) {
  const std::string key = table_key("mel_filters", n_fft, bands, sample_rate, f_min, f_max, scale, norm);
  return {key, kept_table(key, at::kDouble, at::kCPU,
                          [&] { return make_mel_filters(n_fft, bands, sample_rate, f_min, f_max, scale, norm); })};
}

SpectrumTable kaldi_mel_filters(int64_t n_fft, int64_t bands, double sample_rate, double f_min, double f_max,
                                const Vtln& vtln) {
  const std::string key =
      table_key("kaldi_mel_filters", n_fft, bands, sample_rate, f_min, f_max, vtln.low, vtln.high, vtln.warp);
  return {key, kept_table(key, at::kDouble, at::kCPU,
                          [&] { return make_kaldi_mel_filters(n_fft, bands, sample_rate, f_min, f_max, vtln); })};
}

namespace {

Tensor mel_filter_bank(int64_t n_fft, int64_t n_mels, double sample_rate, double f_min, std::optional<double> f_max,
                       std::string_view mel_scale, std::string_view norm) {
  return mel_filters(n_fft, n_mels, sample_rate, f_min, f_max.value_or(sample_rate / 2), mel_scale, norm)
      .values.to(at::kFloat);
}

Tensor kaldi_mel_filter_bank(int64_t n_fft, int64_t n_mels, double sample_rate, double f_min, double f_max,
                             double vtln_low, double vtln_high, double vtln_warp) {
  return kaldi_mel_filters(n_fft, n_mels, sample_rate, f_min, f_max, {vtln_low, vtln_high, vtln_warp})
      .values.to(at::kFloat);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def(
      "mel_filter_bank(int n_fft, int n_mels, float sample_rate, *, float f_min=0., float? f_max=None, "
      "str mel_scale='slaney', str norm='slaney') -> Tensor",
      mel_filter_bank);
  m.def(
      "kaldi_mel_filter_bank(int n_fft, int n_mels, float sample_rate, *, float f_min=20., float f_max=0., "
      "float vtln_low=100., float vtln_high=-500., float vtln_warp=1.) -> Tensor",
      kaldi_mel_filter_bank);
}

}  // namespace voxtorch::audio

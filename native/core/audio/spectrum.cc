#include "core/audio/spectrum.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/fft_rfft.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/view_as_real.h>
#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/audio/lanes.h"
#include "core/audio/lanes_choice.h"

namespace voxtorch::audio {
namespace {

using at::Tensor;

// A plan and the numbers that it points to.
struct Fft {
  FftPlan plan;
  std::vector<double> twiddles;
  std::vector<double> split;
};

void push_root(std::vector<double>& to, int64_t numerator, int64_t denominator) {
  const double angle = -2 * M_PI * static_cast<double>(numerator % denominator) / static_cast<double>(denominator);
  to.push_back(std::cos(angle));
  to.push_back(std::sin(angle));
}

// Null for a size that has other factors than 2, 3 and 5.
std::unique_ptr<Fft> plan_fft(int64_t size) {
  if (size < 2 || size % 2 != 0) return nullptr;
  auto fft = std::make_unique<Fft>();
  fft->plan.size = size;
  int64_t left = size / 2;
  for (const int radix : {4, 2, 3, 5}) {
    while (left % radix == 0) {
      if (fft->plan.passes == FftPlan::kMaxPasses) return nullptr;
      fft->plan.radix[fft->plan.passes++] = radix;
      const int64_t points = left;
      left /= radix;
      for (int64_t group = 0; group < left; ++group) {
        for (int64_t k = 1; k < radix; ++k) push_root(fft->twiddles, group * k, points);
      }
    }
  }
  if (left != 1) return nullptr;
  for (int64_t k = 0; k <= size / 4; ++k) push_root(fft->split, k, size);
  fft->plan.twiddles = fft->twiddles.data();
  fft->plan.split = fft->split.data();
  return fft;
}

// Each filter's run of weights that are not zero.
struct SparseFilters {
  explicit SparseFilters(const Tensor& filters) : dense(filters.contiguous()) {
    const int64_t bins = dense.size(1);
    for (int64_t band = 0; band < dense.size(0); ++band) {
      const double* row = dense.const_data_ptr<double>() + band * bins;
      int64_t begin = 0;
      int64_t end = bins;
      while (begin < end && row[begin] == 0) ++begin;
      while (end > begin && row[end - 1] == 0) --end;
      first.push_back(begin);
      count.push_back(end - begin);
      weights.push_back(row + begin);
    }
  }

  Tensor dense;
  std::vector<int64_t> first;
  std::vector<int64_t> count;
  std::vector<const double*> weights;
};

constexpr int64_t kLongestFused = 1 << 15;  // beyond, four frames side by side leave the cache

Tensor fused_energies(const Tensor& signal, const Tensor& window, const Tensor& filters, const SpectrumOptions& options,
                      const Fft& fft, int64_t frames) {
  const Tensor samples = signal.contiguous();
  const Tensor weights = window.contiguous();
  std::unique_ptr<SparseFilters> sparse;
  if (filters.defined()) sparse = std::make_unique<SparseFilters>(filters);
  const int64_t bands = filters.defined() ? filters.size(0) : options.n_fft / 2 + 1;
  const int64_t batch = samples.size(0);
  const Tensor output = options.bands_first ? at::empty({batch, bands, frames}, samples.options())
                                            : at::empty({batch, frames, bands}, samples.options());
  SpectrumArgs args = {};
  args.hop = options.hop;
  args.frame_length = weights.size(0);
  args.window = weights.const_data_ptr<double>();
  args.remove_dc = options.remove_dc;
  args.preemphasis = options.preemphasis;
  args.power = options.power;
  args.magnitude_epsilon = options.magnitude_epsilon;
  args.plan = fft.plan;
  if (sparse) {
    args.bands = bands;
    args.first_bin = sparse->first.data();
    args.bin_count = sparse->count.data();
    args.weights = sparse->weights.data();
  }
  args.frame_stride = options.bands_first ? 1 : bands;
  args.band_stride = options.bands_first ? frames : 1;
  const float* input = samples.const_data_ptr<float>();
  float* to = output.mutable_data_ptr<float>();
  const int64_t clip = samples.size(1);
  const AudioLanes& lanes = audio_lanes();

  // Whole groups of lanes of one clip each, so that no thread wastes lanes.
  const int64_t groups = (frames + kFrameLanes - 1) / kFrameLanes;
  at::parallel_for(0, batch * groups, 8, [&](int64_t begin, int64_t end) {
    std::unique_ptr<double, decltype(&std::free)> scratch(
        static_cast<double*>(std::aligned_alloc(
            64, static_cast<size_t>((spectrum_scratch(options.n_fft) * static_cast<int64_t>(sizeof(double)) + 63) / 64 *
                                    64))),
        &std::free);
    TORCH_CHECK(scratch != nullptr, "no memory for the frames of a spectrum");
    SpectrumArgs own = args;
    while (begin < end) {
      const int64_t item = begin / groups;
      const int64_t first = begin % groups;
      const int64_t last = std::min(groups, first + end - begin);
      own.signal = input + item * clip;
      own.output = to + item * frames * bands;
      lanes.spectrum(own, first * kFrameLanes, std::min(frames, last * kFrameLanes), scratch.get());
      begin += last - first;
    }
  });
  return output;
}

bool wants_gradient(const Tensor& tensor) { return at::GradMode::is_enabled() && tensor.requires_grad(); }

}  // namespace

Tensor window_function(std::string_view name, int64_t length, bool periodic, double blackman_coefficient) {
  const Tensor window = at::empty({length}, at::TensorOptions(at::kDouble));
  double* values = window.mutable_data_ptr<double>();
  const double turn = 2 * M_PI / static_cast<double>(std::max<int64_t>(1, periodic ? length : length - 1));
  for (int64_t i = 0; i < length; ++i) {
    const double cosine = std::cos(turn * static_cast<double>(i));
    double value = 1;
    if (name == "hann") {
      value = 0.5 - 0.5 * cosine;
    } else if (name == "povey") {
      value = std::pow(0.5 - 0.5 * cosine, 0.85);
    } else if (name == "hamming") {
      value = 0.54 - 0.46 * cosine;
    } else if (name == "blackman") {
      value = blackman_coefficient - 0.5 * cosine +
              (0.5 - blackman_coefficient) * std::cos(2 * turn * static_cast<double>(i));
    } else {
      TORCH_CHECK(name == "rectangular",
                  "window must be 'hann', 'povey', 'hamming', 'blackman' or 'rectangular', got '", name, "'");
    }
    values[i] = value;
  }
  return window;
}

Tensor spectral_energies(const Tensor& signal, const Tensor& window, const Tensor& filters,
                         const SpectrumOptions& options) {
  const int64_t length = window.size(0);
  const int64_t frames = signal.size(1) < length ? 0 : (signal.size(1) - length) / options.hop + 1;
  if (signal.is_cpu() && signal.scalar_type() == at::kFloat && !wants_gradient(signal) &&
      options.n_fft <= kLongestFused && frames > 0) {
    if (const std::unique_ptr<Fft> fft = plan_fft(options.n_fft)) {
      return fused_energies(signal, window, filters, options, *fft, frames);
    }
  }
  Tensor energies;
  if (frames == 0) {
    energies = signal.new_zeros({signal.size(0), 0, filters.defined() ? filters.size(0) : options.n_fft / 2 + 1});
  } else {
    Tensor framed = signal.unfold(-1, length, options.hop);  // [batch, frames, length]
    if (options.remove_dc) framed = without_dc(framed);
    energies = energies_of_frames(framed, window, filters, options);
  }
  return options.bands_first ? energies.transpose(-1, -2).contiguous() : energies;
}

Tensor without_dc(const Tensor& frames) { return frames - frames.mean(-1, true); }

Tensor energies_of_frames(const Tensor& frames, const Tensor& window, const Tensor& filters,
                          const SpectrumOptions& options) {
  Tensor framed = frames;
  if (options.preemphasis != 0) {
    const Tensor before = at::cat({framed.narrow(-1, 0, 1), framed.narrow(-1, 0, framed.size(-1) - 1)}, -1);
    framed = framed - options.preemphasis * before;
  }
  framed = framed * window.to(frames.options());
  Tensor energies = at::view_as_real(at::fft_rfft(framed, options.n_fft)).square().sum(-1);  // [batch, frames, bins]
  if (!options.power) energies = (energies + options.magnitude_epsilon).sqrt();
  return filters.defined() ? at::matmul(energies, filters.to(frames.options()).t()) : energies;
}

Tensor as_batch(const char* op, const Tensor& samples) {
  TORCH_CHECK(samples.dim() >= 1, op, ": samples must have shape [samples] or [..., samples], got a number");
  TORCH_CHECK(samples.is_floating_point(), op, ": samples must be floating point, got ", samples.scalar_type());
  const bool wide = samples.scalar_type() == at::kDouble;
  const Tensor batch =
      samples.reshape({c10::multiply_integers(samples.sizes().slice(0, samples.dim() - 1)), samples.size(-1)});
  return (wide ? batch : batch.to(at::kFloat)).resolve_neg();
}

Tensor unbatch(const Tensor& result, const Tensor& samples) {
  std::vector<int64_t> sizes(samples.sizes().begin(), samples.sizes().end() - 1);
  for (int64_t dim = 1; dim < result.dim(); ++dim) sizes.push_back(result.size(dim));
  return result.reshape(sizes);
}

}  // namespace voxtorch::audio

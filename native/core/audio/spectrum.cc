#include "core/audio/spectrum.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/fft_rfft.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/view_as_real.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/Exception.h>
#include <c10/util/accumulate.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/audio/lanes.h"
#include "core/runtime/device_tables.h"

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

constexpr int64_t kMostFramed = 1 << 25;    // elements of all frames that operators make at a time
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
  const AudioLanes& lanes = VOXTORCH_BEST_OF_TWO_BUILDS(audio_lanes);

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

namespace {

Tensor make_window(std::string_view name, int64_t length, bool periodic, double blackman_coefficient) {
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

}  // namespace

Tensor SpectrumTable::like(const Tensor& like, const std::string& purpose,
                           const std::function<Tensor(const Tensor&)>& derive) const {
  return kept_table(key + purpose, like.scalar_type(), like.device(), [&] { return derive ? derive(values) : values; });
}

SpectrumTable window_function(std::string_view name, int64_t length, bool periodic, double blackman_coefficient,
                              int64_t width) {
  const std::string key = table_key("window", name, length, periodic, blackman_coefficient, width);
  return {key, kept_table(key, at::kDouble, at::kCPU, [&] {
            const Tensor window = make_window(name, length, periodic, blackman_coefficient);
            const int64_t left = std::max<int64_t>(0, width - length) / 2;
            return at::constant_pad_nd(window, {left, std::max(width, length) - length - left});
          })};
}

Tensor spectral_energies(const Tensor& signal, const SpectrumTable& window, const SpectrumTable& filters,
                         const SpectrumOptions& options) {
  const int64_t length = window.values.size(0);
  const int64_t frames = signal.size(1) < length ? 0 : (signal.size(1) - length) / options.hop + 1;
  if (signal.is_cpu() && signal.scalar_type() == at::kFloat && !wants_gradient(signal) &&
      options.n_fft <= kLongestFused && frames > 0) {
    if (const std::unique_ptr<Fft> fft = plan_fft(options.n_fft)) {
      return fused_energies(signal, window.values, filters.values, options, *fft, frames);
    }
  }
  if (frames == 0) {
    const int64_t bands = filters.values.defined() ? filters.values.size(0) : options.n_fft / 2 + 1;
    return options.bands_first ? signal.new_zeros({signal.size(0), bands, 0})
                               : signal.new_zeros({signal.size(0), 0, bands});
  }
  const auto some = [&](const Tensor& part) {
    const Tensor framed = part.unfold(-1, length, options.hop);  // [batch, frames, length]
    return energies_of_frames(options.remove_dc ? without_dc(framed) : framed, window, filters, options);
  };
  // An hour's frames would take gigabytes.
  const int64_t most = std::max<int64_t>(1, kMostFramed / (std::max<int64_t>(1, signal.size(0)) * options.n_fft));
  if (frames <= most) return some(signal);
  std::vector<Tensor> parts;
  for (int64_t first = 0; first < frames; first += most) {
    const int64_t count = std::min(most, frames - first);
    parts.push_back(some(signal.narrow(1, first * options.hop, (count - 1) * options.hop + length)));
  }
  return at::cat(parts, options.bands_first ? 2 : 1);
}

Tensor without_dc(const Tensor& frames) { return frames - frames.mean(-1, true); }

Tensor energies_of_frames(const Tensor& frames, const SpectrumTable& window, const SpectrumTable& filters,
                          const SpectrumOptions& options) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const double p = options.preemphasis;
  Tensor framed;
  if (p == 0) {
    framed = frames * window.like(frames);
  } else {
    // w (x[i] - p x[i - 1]) as a product for each of the two; the first sample is its own predecessor.
    const auto key = table_key("preemphasis", p);
    const Tensor of_own = window.like(frames, key + "own", [p](const Tensor& w) {
      Tensor own = w.clone();
      own.narrow(0, 0, 1).mul_(1 - p);
      return own;
    });
    const Tensor of_before =
        window.like(frames, key + "before", [p](const Tensor& w) { return w.narrow(0, 1, w.size(0) - 1) * -p; });
    const int64_t rest = frames.size(-1) - 1;
    framed = frames * of_own;
    framed.narrow(-1, 1, rest).addcmul_(frames.narrow(-1, 0, rest), of_before);
  }
  // The squares of real and imaginary parts, which power adds: so do the filters, where each weight stands twice.
  const Tensor squares = at::view_as_real(at::fft_rfft(framed, options.n_fft)).square();  // [batch, frames, bins, 2]
  Tensor energies;
  if (options.power && filters.values.defined()) {
    energies = squares.flatten(-2);
  } else {
    energies = squares.sum(-1);
    if (!options.power) energies = (energies + options.magnitude_epsilon).sqrt();
  }
  if (filters.values.defined()) {
    const Tensor weights =
        options.power ? filters.like(frames, "twice", [](const Tensor& f) { return f.repeat_interleave(2, 1); })
                      : filters.like(frames);  // [bands, bins or 2 bins]
    if (!options.bands_first) return at::matmul(energies, weights.t());
    return at::bmm(weights.unsqueeze(0).expand({energies.size(0), -1, -1}), energies.transpose(1, 2));
  }
  return options.bands_first ? energies.transpose(1, 2).contiguous() : energies;
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

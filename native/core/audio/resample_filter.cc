#include "core/audio/resample_filter.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <mutex>
#include <utility>

#include "core/audio/lanes.h"

namespace voxtorch::audio {
namespace {

constexpr int64_t kMostWeights = 1 << 24;

// The modified Bessel function of the first kind, order zero, by its power series: all terms are positive.
double bessel_i0(double x) {
  const double quarter = x * x / 4;
  double term = 1;
  double total = 1;
  for (int k = 1; term > total * 1e-17; ++k) {
    term *= quarter / (static_cast<double>(k) * k);
    total += term;
  }
  return total;
}

std::shared_ptr<const ResampleFilter> make_filter(const ResampleSpec& spec) {
  const double from = static_cast<double>(spec.from);
  const double to = static_cast<double>(spec.to);
  const double width = static_cast<double>(spec.width);
  const double cutoff = std::min(from, to) * spec.rolloff;
  const double reach = width * from / cutoff;  // half the filter's length in input samples
  const double needed = std::floor(2 * reach) + 1;
  TORCH_CHECK(needed * to <= kMostWeights, "resample: going from ", spec.from, " to ", spec.to,
              " (without common factors) needs a filter of ", needed, " weights for each of ", spec.to,
              " phases, which is too big; choose rates with a common factor or go in two steps");
  auto filter = std::make_shared<ResampleFilter>();
  filter->taps = (static_cast<int64_t>(needed) + kLanes - 1) / kLanes * kLanes;
  filter->weights.resize(static_cast<size_t>(spec.to * filter->taps));
  const double at_centre = spec.kaiser ? bessel_i0(spec.beta) : 1;
  for (int64_t phase = 0; phase < spec.to; ++phase) {
    const double centre = static_cast<double>(phase) * from / to;
    const int64_t first = static_cast<int64_t>(std::ceil(centre - reach));
    filter->first.push_back(first);
    double* weights = filter->weights.data() + phase * filter->taps;
    for (int64_t tap = 0; tap < filter->taps; ++tap) {
      // In zero crossings. The numerator is whole, so the center of the sinc is hit exactly.
      const double t = static_cast<double>((first + tap) * spec.to - phase * spec.from) / to / from * cutoff;
      if (std::abs(t) >= width) continue;
      const double cosine = std::cos(t * M_PI / width / 2);
      const double window =
          spec.kaiser ? bessel_i0(spec.beta * std::sqrt(1 - t / width * (t / width))) / at_centre : cosine * cosine;
      weights[tap] = (t == 0 ? 1 : std::sin(M_PI * t) / (M_PI * t)) * window * cutoff / from;
    }
  }
  filter->weights32.assign(filter->weights.begin(), filter->weights.end());
  return filter;
}

}  // namespace

std::shared_ptr<const ResampleFilter> resample_filter(const ResampleSpec& spec) {
  static std::mutex mutex;
  static std::deque<std::pair<ResampleSpec, std::shared_ptr<const ResampleFilter>>> recent;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    for (const auto& [known, filter] : recent) {
      if (known == spec) return filter;
    }
  }
  auto filter = make_filter(spec);
  const std::lock_guard<std::mutex> lock(mutex);
  recent.emplace_back(spec, filter);
  if (recent.size() > 4) recent.pop_front();
  return filter;
}

}  // namespace voxtorch::audio

// Resampling by a windowed sinc (Smith, "Digital Audio Resampling", https://ccrma.stanford.edu/~jos/resample/), with
// the parameters and the results of torchaudio.functional.resample.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_convolution.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "core/audio/lanes.h"
#include "core/audio/resample_filter.h"
#include "core/audio/spectrum.h"
#include "core/runtime/device_tables.h"

namespace voxtorch::audio {
namespace {

using at::Tensor;

// Outputs [begin, begin + count) of one or more signals that are zero outside of what is given.
struct Range {
  int64_t begin;
  int64_t count;
};

// The samples that the outputs of a range read: [first, end).
struct Reach {
  int64_t first;
  int64_t end;
};

Reach reach_of(const ResampleSpec& spec, const ResampleFilter& filter, const Range& range) {
  const int64_t last = range.begin + range.count - 1;
  return {range.begin / spec.to * spec.from + filter.first[static_cast<size_t>(range.begin % spec.to)],
          last / spec.to * spec.from + filter.first[static_cast<size_t>(last % spec.to)] + filter.taps};
}

// signal [batch, n] float32 whose sample 0 is sample `start`, and zeros, to cover `reach`.
Tensor covering(const Tensor& signal, int64_t start, const Reach& reach) {
  return at::constant_pad_nd(signal, {start - reach.first, reach.end - start - signal.size(1)}).contiguous();
}

Tensor polyphase(const Tensor& signal, int64_t start, const ResampleSpec& spec, const ResampleFilter& filter,
                 const Range& range) {
  const Reach reach = reach_of(spec, filter, range);
  const Tensor samples = covering(signal, start, reach);
  const Tensor output = at::empty({samples.size(0), range.count}, samples.options());
  PolyphaseArgs args = {};
  args.weights = filter.weights32.data();
  args.first = filter.first.data();
  args.phases = spec.to;
  args.taps = filter.taps;
  args.step = spec.from;
  args.position = reach.first;
  args.origin = range.begin;
  const AudioLanes& lanes = VOXTORCH_BEST_OF_TWO_BUILDS(audio_lanes);
  const int64_t grain = std::max<int64_t>(1, 100'000 / filter.taps);
  for (int64_t item = 0; item < samples.size(0); ++item) {
    args.signal = samples.const_data_ptr<float>() + item * samples.size(1);
    args.output = output.mutable_data_ptr<float>() + item * range.count;
    at::parallel_for(range.begin, range.begin + range.count, grain,
                     [&](int64_t begin, int64_t end) { lanes.polyphase(args, begin, end); });
  }
  return output;
}

constexpr int64_t kMostDense = 1 << 24;

// The filters of all phases over the samples that any of them reads, [to, span]: what a phase does not read is 0.
Tensor dense_weights(const ResampleFilter& filter, int64_t phases, int64_t span) {
  const Tensor dense = at::zeros({phases, span}, at::TensorOptions(at::kDouble));
  double* row = dense.mutable_data_ptr<double>();
  for (int64_t phase = 0; phase < phases; ++phase, row += span) {
    const double* weights = filter.weights.data() + phase * filter.taps;
    std::copy(weights, weights + filter.taps, row + filter.first[static_cast<size_t>(phase)] - filter.first.front());
  }
  return dense;
}

// In differentiable operators, on any device: one strided convolution whose channels are the phases, or, where its
// filters would be mostly zeros, a sum over taps. Whatever autocast says, in the signal's dtype.
Tensor in_operators(const Tensor& signal, int64_t start, const ResampleSpec& spec, const ResampleFilter& filter,
                    const Range& range) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const int64_t batch = signal.size(0);
  const int64_t blocks = (range.begin + range.count - 1) / spec.to - range.begin / spec.to + 1;
  const int64_t base = range.begin / spec.to * spec.from;
  const int64_t lowest = filter.first.front();
  const int64_t span = filter.first.back() + filter.taps - lowest;
  const Reach reach = {base + lowest, base + (blocks - 1) * spec.from + lowest + span};
  const Tensor samples = covering(signal, start, reach);
  const std::string key = table_key("resample", spec.from, spec.to, spec.width, spec.rolloff, spec.kaiser, spec.beta);
  const auto kept = [&](const char* what, at::ScalarType dtype, const std::function<Tensor()>& make) {
    return kept_table(key + what, dtype, signal.device(), make);
  };
  Tensor result;
  if (spec.to * span <= kMostDense) {
    const Tensor dense =
        kept("dense", signal.scalar_type(), [&] { return dense_weights(filter, spec.to, span); }).unsqueeze(1);
    // Not in TF32, which CUDA's convolutions of float32 are otherwise: it would be heard.
    result = at::GradMode::is_enabled() && signal.requires_grad()
                 ? at::conv1d(samples.unsqueeze(1), dense, {}, spec.from)
                 : at::_convolution(samples.unsqueeze(1), dense, {}, {spec.from}, {0}, {1}, false, {0}, 1, false, false,
                                    /*cudnn_enabled=*/true, /*allow_tf32=*/false);  // [batch, phases, blocks]
    result = result.transpose(1, 2).reshape({batch, blocks * spec.to});
  } else {
    const Tensor weights = kept("weights", signal.scalar_type(), [&] {
      return at::from_blob(const_cast<double*>(filter.weights.data()), {spec.to, filter.taps},
                           at::TensorOptions(at::kDouble))
          .clone();
    });
    const Tensor first = kept("first", at::kLong, [&] {
      return at::from_blob(const_cast<int64_t*>(filter.first.data()), {spec.to}, at::TensorOptions(at::kLong)) - lowest;
    });
    const Tensor starts = (at::arange(blocks, first.options()).unsqueeze(1) * spec.from + first).reshape({-1});
    result = at::zeros({batch, blocks, spec.to}, signal.options());
    for (int64_t tap = 0; tap < filter.taps; ++tap) {
      const Tensor read = samples.index_select(1, starts + tap).reshape({batch, blocks, spec.to});
      result = result + read * weights.select(1, tap);
    }
    result = result.reshape({batch, blocks * spec.to});
  }
  return result.narrow(1, range.begin % spec.to, range.count);
}

Tensor resample(const Tensor& samples, int64_t from, int64_t to, int64_t width, double rolloff, std::string_view window,
                double beta, int64_t start, int64_t first, std::optional<int64_t> count) {
  const char* op = "resample";
  constexpr int64_t kHighest = int64_t{1} << 31;
  TORCH_CHECK(from >= 1 && from <= kHighest && to >= 1 && to <= kHighest, op,
              ": rates must be between 1 and 2^31, got ", from, " and ", to);
  TORCH_CHECK(width >= 1 && width <= 4096, op, ": lowpass_filter_width must be between 1 and 4096, got ", width);
  TORCH_CHECK(rolloff > 0.01 && rolloff <= 1, op, ": rolloff must be above 0.01 and at most 1, got ", rolloff);
  TORCH_CHECK(window == "hann" || window == "kaiser", op, ": window must be 'hann' or 'kaiser', got '", window, "'");
  TORCH_CHECK(beta >= 0 && beta <= 100, op, ": beta must be between 0 and 100, got ", beta);
  constexpr int64_t kLongest = int64_t{1} << 40;
  TORCH_CHECK(start >= 0 && start <= kLongest && first >= 0 && first <= kLongest && count.value_or(0) >= 0 &&
                  count.value_or(0) <= kLongest,
              op, ": start, first and count must be between 0 and 2^40");
  const Tensor signal = as_batch(op, samples);
  const int64_t factor = std::gcd(from, to);
  ResampleSpec spec{from / factor, to / factor, width, rolloff, window == "kaiser", beta};
  if (!spec.kaiser) spec.beta = 0;  // one key for one filter
  const int64_t end = start + signal.size(1);
  TORCH_CHECK(end <= (int64_t{1} << 62) / spec.to, op, ": the clip is too long");
  const Range range{first, count.value_or(std::max<int64_t>(0, (end * spec.to + spec.from - 1) / spec.from - first))};
  if (range.count == 0 || signal.size(0) == 0) return unbatch(signal.new_zeros({signal.size(0), range.count}), samples);
  TORCH_CHECK(range.count <= kLongest, op, ": the result would have ", range.count, " samples");
  if (spec.from == spec.to) {
    return unbatch(at::constant_pad_nd(signal, {start - first, first + range.count - end}), samples);
  }
  const auto filter = resample_filter(spec);
  const bool plain =
      signal.is_cpu() && signal.scalar_type() == at::kFloat && !(at::GradMode::is_enabled() && signal.requires_grad());
  const Tensor result =
      plain ? polyphase(signal, start, spec, *filter, range) : in_operators(signal, start, spec, *filter, range);
  return unbatch(result, samples);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  // samples [..., n] -> [..., ceil(n * to / from)]. For a stream: samples[..., 0] is sample `start` of the clip, the
  // outputs [first, first + count) are computed, and what is not given counts as zero.
  m.def(
      "resample(Tensor samples, int from, int to, *, int lowpass_filter_width=6, float rolloff=0.99, str "
      "window='hann', "
      "float beta=14.769656459379492, int start=0, int first=0, int? count=None) -> Tensor",
      resample);
}

}  // namespace voxtorch::audio

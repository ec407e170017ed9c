// See lanes.h. Compiled once for each instruction set (../kernels/builds.h). In the spectrum a lane is a frame: four
// frames go through the FFT side by side, so no step of it shuffles within a register.
#include <cstdint>
#include <cstring>

#include "core/audio/lanes.h"

namespace voxtorch::audio {
namespace {

#define VOXTORCH_INLINE inline __attribute__((always_inline))

// Wider than the baseline's registers; no such value crosses a function that is not inlined.
#pragma GCC diagnostic ignored "-Wpsabi"
typedef float Floats __attribute__((vector_size(kLanes * 4)));

typedef double Doubles __attribute__((vector_size(kFrameLanes * 8)));

VOXTORCH_INLINE Doubles load(const double* from) {
  Doubles value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

VOXTORCH_INLINE void store(double* to, Doubles value) { std::memcpy(to, &value, sizeof(value)); }

VOXTORCH_INLINE Floats load(const float* from) {
  Floats value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

VOXTORCH_INLINE float sum(Floats value) {
  return ((value[0] + value[4]) + (value[1] + value[5])) + ((value[2] + value[6]) + (value[3] + value[7]));
}

struct Complex {
  Doubles re;
  Doubles im;
};

VOXTORCH_INLINE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
VOXTORCH_INLINE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
VOXTORCH_INLINE Complex scaled(Complex a, double by) { return {a.re * by, a.im * by}; }
VOXTORCH_INLINE Complex over_i(Complex a) { return {a.im, -a.re}; }  // a / i
VOXTORCH_INLINE Complex times(Complex a, const double* twiddle) {
  return {a.re * twiddle[0] - a.im * twiddle[1], a.re * twiddle[1] + a.im * twiddle[0]};
}
VOXTORCH_INLINE Complex load_complex(const double* from) { return {load(from), load(from + kFrameLanes)}; }
VOXTORCH_INLINE void store_complex(double* to, Complex value) {
  store(to, value.re);
  store(to + kFrameLanes, value.im);
}

// The discrete Fourier transform of 2, 3, 4 or 5 points, in place.
template <int kRadix>
VOXTORCH_INLINE void butterfly(Complex* x) {
  if constexpr (kRadix == 2) {
    const Complex a = x[0], b = x[1];
    x[0] = a + b;
    x[1] = a - b;
  } else if constexpr (kRadix == 3) {
    constexpr double kSin = 0.86602540378443864676;
    const Complex s = x[1] + x[2];
    const Complex d = scaled(over_i(x[1] - x[2]), kSin);
    const Complex m = x[0] - scaled(s, 0.5);
    x[0] = x[0] + s;
    x[1] = m + d;
    x[2] = m - d;
  } else if constexpr (kRadix == 4) {
    const Complex a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3], d = over_i(x[1] - x[3]);
    x[0] = a + c;
    x[1] = b + d;
    x[2] = a - c;
    x[3] = b - d;
  } else {
    constexpr double kCos1 = 0.30901699437494742410, kCos2 = -0.80901699437494742410;
    constexpr double kSin1 = 0.95105651629515357212, kSin2 = 0.58778525229247312917;
    const Complex s1 = x[1] + x[4], s2 = x[2] + x[3], d1 = over_i(x[1] - x[4]), d2 = over_i(x[2] - x[3]);
    const Complex a1 = x[0] + scaled(s1, kCos1) + scaled(s2, kCos2);
    const Complex a2 = x[0] + scaled(s1, kCos2) + scaled(s2, kCos1);
    const Complex b1 = scaled(d1, kSin1) + scaled(d2, kSin2);
    const Complex b2 = scaled(d1, kSin2) - scaled(d2, kSin1);
    x[0] = x[0] + s1 + s2;
    x[1] = a1 + b1;
    x[2] = a2 + b2;
    x[3] = a2 - b2;
    x[4] = a1 - b1;
  }
}

// One pass of Stockham's transform, which leaves its results in natural order: `groups` of `radix` points, `stride`
// transforms that are done already lie side by side.
template <int kRadix>
void pass(const double* from, double* to, int64_t groups, int64_t stride, const double* twiddles) {
  constexpr int64_t kPoint = 2 * kFrameLanes;
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t i = 0; i < stride; ++i) {
      Complex x[kRadix];
      for (int j = 0; j < kRadix; ++j) x[j] = load_complex(from + kPoint * (i + stride * (group + groups * j)));
      butterfly<kRadix>(x);
      double* at = to + kPoint * (i + stride * kRadix * group);
      store_complex(at, x[0]);
      for (int j = 1; j < kRadix; ++j) store_complex(at + kPoint * stride * j, times(x[j], twiddles + 2 * (j - 1)));
    }
    twiddles += 2 * (kRadix - 1);
  }
}

// The complex transform of plan.size / 2 points; returns which of the two buffers holds the result.
double* transform(const FftPlan& plan, double* data, double* other) {
  int64_t left = plan.size / 2;
  int64_t stride = 1;
  const double* twiddles = plan.twiddles;
  for (int i = 0; i < plan.passes; ++i) {
    const int radix = plan.radix[i];
    left /= radix;
    switch (radix) {
      case 2:
        pass<2>(data, other, left, stride, twiddles);
        break;
      case 3:
        pass<3>(data, other, left, stride, twiddles);
        break;
      case 4:
        pass<4>(data, other, left, stride, twiddles);
        break;
      default:
        pass<5>(data, other, left, stride, twiddles);
    }
    twiddles += 2 * left * (radix - 1);
    stride *= radix;
    double* swapped = data;
    data = other;
    other = swapped;
  }
  return data;
}

VOXTORCH_INLINE void put_energy(const SpectrumArgs& args, double* to, Complex x) {
  Doubles power = x.re * x.re + x.im * x.im;
  if (!args.power) {
    power += args.magnitude_epsilon;
    for (int lane = 0; lane < kFrameLanes; ++lane) power[lane] = __builtin_sqrt(power[lane]);
  }
  store(to, power);
}

// From the transform z of (x[0] + i x[1], x[2] + i x[3], ...) to the energies of the bins of x.
void energies(const SpectrumArgs& args, const double* z, double* bins) {
  constexpr int64_t kPoint = 2 * kFrameLanes;
  const int64_t half = args.plan.size / 2;
  const Complex first = load_complex(z);
  const Doubles zero = {};
  put_energy(args, bins, {first.re + first.im, zero});
  put_energy(args, bins + kFrameLanes * half, {first.re - first.im, zero});
  for (int64_t k = 1; k <= half / 2; ++k) {
    const Complex a = load_complex(z + kPoint * k);
    const Complex b = load_complex(z + kPoint * (half - k));
    const Complex even = {(a.re + b.re) * 0.5, (a.im - b.im) * 0.5};
    const Complex odd = times({(a.im + b.im) * 0.5, (b.re - a.re) * 0.5}, args.plan.split + 2 * k);
    put_energy(args, bins + kFrameLanes * k, even + odd);
    put_energy(args, bins + kFrameLanes * (half - k), even - odd);
  }
}

// One frame, made ready, into its lane of [plan.size][kFrameLanes].
void load_frame(const SpectrumArgs& args, const float* frame, double* lane) {
  const int64_t length = args.frame_length;
  double mean = 0;
  if (args.remove_dc) {
    Doubles total = {};
    int64_t i = 0;
    for (; i + kFrameLanes <= length; i += kFrameLanes) {
      for (int lane = 0; lane < kFrameLanes; ++lane) total[lane] += frame[i + lane];
    }
    for (; i < length; ++i) total[0] += frame[i];
    mean = (total[0] + total[1] + total[2] + total[3]) / static_cast<double>(length);
  }
  double before = frame[0] - mean;
  for (int64_t i = 0; i < length; ++i) {
    const double value = frame[i] - mean;
    lane[i * kFrameLanes] = (value - args.preemphasis * before) * args.window[i];
    before = value;
  }
}

void spectrum(const SpectrumArgs& args, int64_t begin, int64_t end, double* scratch) {
  double* data = scratch;
  double* other = data + kFrameLanes * args.plan.size;
  double* bins = other + kFrameLanes * args.plan.size;
  const int64_t bands = args.bands > 0 ? args.bands : args.plan.size / 2 + 1;
  for (int64_t first = begin; first < end; first += kFrameLanes) {
    const int64_t count = end - first < kFrameLanes ? end - first : kFrameLanes;
    for (int64_t lane = 0; lane < kFrameLanes; ++lane) {
      const int64_t frame = first + (lane < count ? lane : 0);
      load_frame(args, args.signal + frame * args.hop, data + lane);
    }
    std::memset(data + kFrameLanes * args.frame_length, 0,
                sizeof(double) * static_cast<size_t>(kFrameLanes * (args.plan.size - args.frame_length)));
    energies(args, transform(args.plan, data, other), bins);
    for (int64_t band = 0; band < bands; ++band) {
      Doubles total = {};
      if (args.bands > 0) {
        const double* from = bins + kFrameLanes * args.first_bin[band];
        const double* weights = args.weights[band];
        for (int64_t i = 0; i < args.bin_count[band]; ++i) total += load(from + kFrameLanes * i) * weights[i];
      } else {
        total = load(bins + kFrameLanes * band);
      }
      float* to = args.output + band * args.band_stride + first * args.frame_stride;
      for (int64_t lane = 0; lane < count; ++lane) to[lane * args.frame_stride] = static_cast<float>(total[lane]);
    }
  }
}

// One output's sum is always taken in the same order, wherever a range of outputs begins.
void polyphase(const PolyphaseArgs& args, int64_t begin, int64_t end) {
  int64_t phase = begin % args.phases;
  int64_t block = begin / args.phases * args.step - args.position;
  for (int64_t n = begin; n < end; ++n) {
    const float* from = args.signal + (block + args.first[phase]);
    const float* weights = args.weights + phase * args.taps;
    Floats even = {}, odd = {};
    int64_t i = 0;
    for (; i + 2 * kLanes <= args.taps; i += 2 * kLanes) {
      even += load(from + i) * load(weights + i);
      odd += load(from + i + kLanes) * load(weights + i + kLanes);
    }
    if (i < args.taps) even += load(from + i) * load(weights + i);
    args.output[n - args.origin] = sum(even + odd);
    if (++phase == args.phases) {
      phase = 0;
      block += args.step;
    }
  }
}

}  // namespace

extern const AudioLanes VOXTORCH_BUILD(audio_lanes) = {spectrum, polyphase};

}  // namespace voxtorch::audio

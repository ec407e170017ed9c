// See codec_lanes.h. Compiled once for each instruction set (../kernels/builds.h).
#include "core/audio/codec_lanes.h"

#include <cstring>

namespace voxtorch::audio {
namespace {

#define VOXTORCH_INLINE inline __attribute__((always_inline))

// Wider than the baseline's registers; no such value crosses a function that is not inlined.
#pragma GCC diagnostic ignored "-Wpsabi"
constexpr int kWidth = 4;
typedef double Doubles __attribute__((vector_size(kWidth * 8)));
typedef float Floats __attribute__((vector_size(kWidth * 4)));

VOXTORCH_INLINE Doubles load(const double* from) {
  Doubles value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
VOXTORCH_INLINE void store(double* to, const Doubles& value) { std::memcpy(to, &value, sizeof(value)); }
VOXTORCH_INLINE void store(float* to, const Doubles& value) {
  const Floats rounded = __builtin_convertvector(value, Floats);
  std::memcpy(to, &rounded, sizeof(rounded));
}

// sums[i] = sum over k of weights[k][i] lines[stride k].
template <int kOutputs, int kInputs, int kStride, typename Output>
VOXTORCH_INLINE void product(const double (*weights)[kOutputs], const float* lines, Output* block) {
  constexpr int kSums = kOutputs / kWidth;
  Doubles sums[kSums] = {};
  for (int k = 0; k < kInputs; ++k) {
    const double line = lines[kStride * k];
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) sums[i] += load(weights[k] + kWidth * i) * line;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i) store(block + kWidth * i, sums[i]);
}

void long_block(const double (*weights)[36], const float* lines, float* block) {
  product<36, 18, 1>(weights, lines, block);
}

void short_block(const double (*weights)[12], const float* lines, double* block) {
  product<12, 6, 3>(weights, lines, block);
}

void filter(const FilterBank& bank, FilterHistory& history, const float (*rows)[kBands], float* output) {
  for (int row = 0; row < kBandLines; ++row, output += kBands) {
    // Even and odd outputs come from 16 sums and differences of inputs.
    const float* const samples = rows[row];
    float sums[16];
    float differences[16];
    for (int k = 0; k < 16; ++k) {
      sums[k] = samples[k] + samples[31 - k];
      differences[k] = samples[k] - samples[31 - k];
    }
    float even[16];
    float odd[16];
    product<16, 16, 1>(bank.even_cosines, sums, even);
    product<16, 16, 1>(bank.odd_cosines, differences, odd);
    // The 64 cosines of the standard are these 32 and their mirror images.
    history.newest = (history.newest + 960) & 1023;
    double* const newest = history.values + history.newest;
    for (int j = 0; j < 16; ++j) {
      const double a = even[j];  // output 2 j
      const double b = odd[j];   // output 2 j + 1
      if (j >= 8) {
        newest[2 * j - 16] = a;
        newest[2 * j - 15] = b;
      }
      newest[48 - 2 * j] = -a;
      newest[47 - 2 * j] = -b;
      if (j < 8) {
        newest[48 + 2 * j] = -a;
        newest[49 + 2 * j] = -b;
      }
    }
    newest[16] = 0;
    Doubles results[8] = {};
    for (int i = 0; i < 8; ++i) {
      const double* const first = history.values + ((history.newest + 128 * i) & 1023);
      const double* const second = history.values + ((history.newest + 128 * i + 96) & 1023);
      const double* const window = bank.window + 64 * i;
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j)
        results[j] += load(first + kWidth * j) * load(window + kWidth * j) +
                      load(second + kWidth * j) * load(window + 32 + kWidth * j);
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) store(output + kWidth * j, results[j]);
  }
}

// One butterfly of the points i and i + width.
template <typename Value>
VOXTORCH_INLINE void butterfly(Value& re_i, Value& im_i, Value& re_j, Value& im_j, const Value& c, const Value& s) {
  const Value x = re_j * c - im_j * s;
  const Value y = re_j * s + im_j * c;
  re_j = re_i - x;
  im_j = im_i - y;
  re_i = re_i + x;
  im_i = im_i + y;
}

void cosine_transform(const CosinePlan& plan, double* values) {
  const int half = plan.size / 2;
  double* const re = plan.scratch;
  double* const im = plan.scratch + half;
  const double* const twist_re = plan.twists;
  const double* const twist_im = plan.twists + half;
  for (int n = 0; n < half; ++n) {
    const double a = values[2 * n];
    const double b = values[plan.size - 1 - 2 * n];
    const int to = plan.reversed[n];
    re[to] = a * twist_re[n] - b * twist_im[n];
    im[to] = a * twist_im[n] + b * twist_re[n];
  }
  const double* roots = plan.roots;
  for (int width = 1; width < half; roots += 2 * width, width *= 2) {
    for (int begin = 0; begin < half; begin += 2 * width) {
      double* const re_i = re + begin;
      double* const im_i = im + begin;
      double* const re_j = re_i + width;
      double* const im_j = im_i + width;
      if (width < kWidth) {
        for (int k = 0; k < width; ++k) butterfly(re_i[k], im_i[k], re_j[k], im_j[k], roots[k], roots[width + k]);
        continue;
      }
      for (int k = 0; k < width; k += kWidth) {
        Doubles a = load(re_i + k);
        Doubles b = load(im_i + k);
        Doubles c = load(re_j + k);
        Doubles d = load(im_j + k);
        butterfly(a, b, c, d, load(roots + k), load(roots + width + k));
        store(re_i + k, a);
        store(im_i + k, b);
        store(re_j + k, c);
        store(im_j + k, d);
      }
    }
  }
  for (int n = 0; n < half; ++n) {
    values[2 * n] = re[n] * twist_re[n] - im[n] * twist_im[n];
    values[plan.size - 1 - 2 * n] = -(re[n] * twist_im[n] + im[n] * twist_re[n]);
  }
}

}  // namespace

extern const CodecLanes VOXTORCH_BUILD(codec_lanes) = {long_block, short_block, filter, cosine_transform};

}  // namespace voxtorch::audio

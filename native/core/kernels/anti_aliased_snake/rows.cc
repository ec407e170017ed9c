// The float32 and bfloat16 rows of anti_aliased_snake, compiled once for each instruction set (../builds.h).
//
// The signal at twice the rate is kept in its two phases, "even" and "odd", each as long as the row: then both filters
// are sums of neighboring blocks. What phase e is at place j of, the input is at places j - 3 + e to j + 2 + e.
#include "core/kernels/anti_aliased_snake/args.h"
#include "core/kernels/row_blocks.h"

namespace voxtorch::kernels {
namespace {

constexpr int64_t kBefore = kSnakeHalf / 2;          // places of the phases that a tile sees before its first
constexpr int64_t kSpace = kSnakeTile + 4 * kBlock;  // a tile with what it sees on both sides, in whole blocks
constexpr float kReducible = 25000.0f;               // beyond it pi in three parts is too few

struct Filter {
  float even[kSnakeHalf], odd[kSnakeHalf];  // the taps that the even and the odd phase are made with
};

// Taps by distance: out[j] = sum over q of even[q] * x[j + 2 - q] and odd[q] * x[j + 3 - q].
Filter phases_of(const void* taps, float scale) {
  const float* all = static_cast<const float*>(taps);
  Filter filter;
  for (int q = 0; q < kSnakeHalf; ++q) {
    filter.even[q] = scale * all[2 * q + 1];
    filter.odd[q] = scale * all[2 * q];
  }
  return filter;
}

VOXTORCH_INLINE int64_t whole(int64_t count) { return (count + kBlock - 1) / kBlock * kBlock; }

// Places [first, first + count) of a row into `to`; beyond its ends its first and last number, or zero.
template <typename T, bool Repeat>
void load_around(float* to, const T* row, int64_t time, int64_t first, int64_t count) {
  const int64_t begin = first < 0 ? -first : 0;
  const int64_t end = first + count > time ? time - first : count;
  each_block(
      end - begin, [&](int64_t at, int64_t many) __attribute__((always_inline)) {
        store(to + begin + at, load(row + first + begin + at, many), many);
      });
  const float low = Repeat ? to[begin] : 0.0f, high = Repeat ? to[end - 1] : 0.0f;
  for (int64_t k = 0; k < begin; ++k) to[k] = low;
  for (int64_t k = end; k < count; ++k) to[k] = high;
}

// even[k] and odd[k] from the places k to k + 6 of `from`, for k below `count`, an integral number of blocks.
VOXTORCH_INLINE void split(const float* from, const Filter& filter, int64_t count, float* even, float* odd) {
  for (int64_t k = 0; k < count; k += kBlock) {
    Block seen = load_block(from + k);
    Block e = seen * filter.even[kSnakeHalf - 1], o = {};
    for (int d = 1; d < kSnakeHalf; ++d) {
      seen = load_block(from + k + d);
      e = e + seen * filter.even[kSnakeHalf - 1 - d];
      o = o + seen * filter.odd[kSnakeHalf - d];
    }
    o = o + load_block(from + k + kSnakeHalf) * filter.odd[0];
    store_block(even + k, e);
    store_block(odd + k, o);
  }
}

// The other way: one block from the places k to k + 6 of both phases.
VOXTORCH_INLINE Block join(const float* even, const float* odd, const Filter& filter, int64_t k) {
  Block sum = load_block(odd + k) * filter.odd[0];
  for (int q = 1; q < kSnakeHalf; ++q) {
    sum = sum + load_block(even + k + q) * filter.even[q - 1];
    sum = sum + load_block(odd + k + q) * filter.odd[q];
  }
  return sum + load_block(even + k + kSnakeHalf) * filter.even[kSnakeHalf - 1];
}

VOXTORCH_INLINE float at_join(const float* even, const float* odd, const Filter& filter, int64_t k, int64_t count) {
  float sum = 0;
  for (int q = 0; q < kSnakeHalf; ++q) {
    if (k + q >= 0 && k + q < count) sum += odd[k + q] * filter.odd[q];
    if (k + q + 1 >= 0 && k + q + 1 < count) sum += even[k + q + 1] * filter.even[q];
  }
  return sum;
}

// x - n pi for the nearest whole n; sin(x)^2 and sin(2 x) have that period.
VOXTORCH_INLINE Floats reduced(Floats x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer
  const Floats n = (x * 0.318309886183790672f + kRound) - kRound;
  return ((x - n * 3.140625f) - n * 9.67502593994140625e-4f) - n * 1.5099579909783765e-7f;
}

// Below 1 ulp from -pi / 2 to pi / 2.
VOXTORCH_INLINE Floats sine(Floats r) {
  const Floats s = r * r;
  Floats y = s * -2.38897789e-8f + 2.75253044e-6f;
  y = y * s + -1.98408619e-4f;
  y = y * s + 8.33333098e-3f;
  y = y * s + -1.66666666e-1f;
  return r + r * (y * s);
}
VOXTORCH_INLINE Floats cosine(Floats r) {
  const Floats s = r * r;
  Floats y = s * 1.99078543e-9f + -2.75246962e-7f;
  y = y * s + 2.48010406e-5f;
  y = y * s + -1.38888842e-3f;
  y = y * s + 4.16666665e-2f;
  return 1.0f - (0.5f - y * s) * s;
}

// Whether all of both phases can be reduced so.
bool reducible(const float* even, const float* odd, int64_t count, float frequency) {
  Ints beyond = {};
  for (int64_t at = 0; at < count; at += kBlock) {
    const Block e = load_block(even + at) * frequency, o = load_block(odd + at) * frequency;
    VOXTORCH_EACH_PART {
      beyond |= (e.part[k] > kReducible) | (e.part[k] < -kReducible);
      beyond |= (o.part[k] > kReducible) | (o.part[k] < -kReducible);
    }
  }
  int32_t lanes[kLanes];
  std::memcpy(lanes, &beyond, sizeof(lanes));
  int32_t any = 0;
  for (int i = 0; i < kLanes; ++i) any |= lanes[i];
  return any == 0;
}

// x + magnitude * sin(frequency * x)^2 of `count` numbers in place.
void activate(float* x, int64_t count, float frequency, float magnitude, bool is_reducible) {
  if (!is_reducible) {
    for (int64_t i = 0; i < count; ++i) {
      const float s = __builtin_sinf(x[i] * frequency);
      x[i] += magnitude * (s * s);
    }
    return;
  }
  for (int64_t at = 0; at < count; at += kBlock) {
    Block block = load_block(x + at);
    VOXTORCH_EACH_PART {
      const Floats s = sine(reduced(block.part[k] * frequency));
      block.part[k] += magnitude * (s * s);
    }
    store_block(x + at, block);
  }
}

template <typename T>
void forward_rows(const SnakeForward& args, int64_t row, int64_t begin, int64_t end) {
  const SnakeInputs& in = args.inputs;
  const int64_t time = in.time, channel = row % in.channels;
  const T* input = static_cast<const T*>(in.input) + row * time;
  T* output = static_cast<T*>(args.output) + row * time;
  const float frequency = static_cast<const float*>(in.frequency)[channel];
  const float magnitude = static_cast<const float*>(in.magnitude)[channel];
  // What is between the samples counts twice, as half of them were zeros.
  const Filter up = phases_of(in.up, 2), down = phases_of(in.down, 1);

  float seen[kSpace], even[kSpace], odd[kSpace];
  for (int64_t first = begin; first < end; first += kSnakeTile) {
    const int64_t count = end - first < kSnakeTile ? end - first : kSnakeTile;
    const int64_t start = first - kBefore;                      // the place of even[0] and odd[0]
    const int64_t places = whole(count + kSnakeTaps + kBlock);  // what the last block of outputs reads
    load_around<T, true>(seen, input, time, start - kBefore, places + kBlock);
    split(seen, up, places, even, odd);
    const bool is_reducible = reducible(even, odd, places, frequency);
    activate(even, places, frequency, magnitude, is_reducible);
    activate(odd, places, frequency, magnitude, is_reducible);
    // Beyond its ends the doubled signal repeats its first and its last number.
    for (int64_t k = 0; k < -start; ++k) even[k] = odd[k] = even[-start];
    for (int64_t k = time - start; k < places; ++k) even[k] = odd[k] = odd[time - start - 1];
    each_block(
        count, [&](int64_t at, int64_t many)
                   __attribute__((always_inline)) { store(output + first + at, join(even, odd, down, at), many); });
  }
}

// What a tile adds to the gradients of frequency and magnitude: of its own places, from kBefore to `owned`.
struct Sums {
  Block frequency = {}, magnitude = {};
};
// One block of a phase: `grads` become those of what the activation was given.
VOXTORCH_INLINE void differentiate(const float* x, float* grads, int64_t at, int64_t owned, float frequency,
                                   float magnitude, bool is_reducible, Sums& sums) {
  const Block value = load_block(x + at), grad = load_block(grads + at);
  Block squares, doubles;  // sin(a)^2 and sin(2 a)
  if (is_reducible) {
    VOXTORCH_EACH_PART {
      const Floats r = reduced(value.part[k] * frequency), s = sine(r);
      squares.part[k] = s * s;
      doubles.part[k] = 2.0f * (s * cosine(r));
    }
  } else {
    float angles[kBlock], first[kBlock], second[kBlock];
    store_block(angles, value * frequency);
    for (int i = 0; i < kBlock; ++i) {
      const float s = __builtin_sinf(angles[i]);
      first[i] = s * s;
      second[i] = 2 * s * __builtin_cosf(angles[i]);
    }
    squares = load_block(first);
    doubles = load_block(second);
  }
  const Block turned = grad * doubles * magnitude;
  store_block(grads + at, grad + turned * frequency);
  Block to_frequency = turned * value, to_magnitude = grad * squares;
  if (at < kBefore || at + kBlock > owned) {
    float a[kBlock], b[kBlock];
    store_block(a, to_frequency);
    store_block(b, to_magnitude);
    for (int64_t i = 0; i < kBlock; ++i) {
      if (at + i < kBefore || at + i >= owned) a[i] = b[i] = 0;
    }
    to_frequency = load_block(a);
    to_magnitude = load_block(b);
  }
  sums.frequency = sums.frequency + to_frequency;
  sums.magnitude = sums.magnitude + to_magnitude;
}

template <typename T>
void backward_rows(const SnakeBackward& args, int64_t row) {
  const SnakeInputs& in = args.inputs;
  const int64_t time = in.time, channel = row % in.channels;
  const T* input = static_cast<const T*>(in.input) + row * time;
  const T* grad_output = static_cast<const T*>(args.grad_output) + row * time;
  T* grad_input = static_cast<T*>(args.grad_input) + row * time;
  const float frequency = static_cast<const float*>(in.frequency)[channel];
  const float magnitude = static_cast<const float*>(in.magnitude)[channel];
  const Filter up = phases_of(in.up, 2), down = phases_of(in.down, 1);

  double to_frequency = 0, to_magnitude = 0;
  float seen[kSpace], even[kSpace], odd[kSpace], even_grad[kSpace], odd_grad[kSpace], result[kSnakeTile];
  for (int64_t first = 0; first < time; first += kSnakeTile) {
    const int64_t count = time - first < kSnakeTile ? time - first : kSnakeTile;
    const int64_t start = first - kBefore, last = time - start;  // `last`: where the row ends in the phases
    const int64_t places = whole(count + kSnakeTaps + kBlock);
    load_around<T, true>(seen, input, time, start - kBefore, places + kBlock);
    split(seen, up, places, even, odd);
    // The second filter's transpose has the form of the first, and the first one's below that of the second.
    load_around<T, false>(seen, grad_output, time, start - kBefore, places + kBlock);
    split(seen, down, places, even_grad, odd_grad);
    // The first and the last number were repeated beyond the ends.
    for (int64_t k = 0; k < -start; ++k) {
      even_grad[-start] += even_grad[k] + odd_grad[k];
      even_grad[k] = odd_grad[k] = 0;
    }
    for (int64_t k = last; k < places; ++k) {
      odd_grad[last - 1] += even_grad[k] + odd_grad[k];
      even_grad[k] = odd_grad[k] = 0;
    }
    const bool is_reducible = reducible(even, odd, places, frequency);
    Sums sums;
    for (int64_t at = 0; at < places; at += kBlock) {
      differentiate(even, even_grad, at, kBefore + count, frequency, magnitude, is_reducible, sums);
      differentiate(odd, odd_grad, at, kBefore + count, frequency, magnitude, is_reducible, sums);
    }
    to_frequency += static_cast<double>(sum(sums.frequency));
    to_magnitude += static_cast<double>(sum(sums.magnitude));
    for (int64_t at = 0; at < count; at += kBlock) store_block(result + at, join(even_grad, odd_grad, up, at));
    for (int64_t k = -kBefore; first == 0 && k < 0; ++k) result[0] += at_join(even_grad, odd_grad, up, k, places);
    for (int64_t k = count; first + count == time && k < count + kBefore; ++k)
      result[count - 1] += at_join(even_grad, odd_grad, up, k, places);
    each_block(
        count, [&](int64_t at, int64_t many)
                   __attribute__((always_inline)) { store(grad_input + first + at, load_block(result + at), many); });
  }
  static_cast<float*>(args.grad_frequency)[row] = static_cast<float>(to_frequency);
  static_cast<float*>(args.grad_magnitude)[row] = static_cast<float>(to_magnitude);
}

}  // namespace

extern const SnakeRows VOXTORCH_BUILD(snake_rows) = {
    {forward_rows<float>, forward_rows<BFloat16>},
    {backward_rows<float>, backward_rows<BFloat16>},
};

}  // namespace voxtorch::kernels

// What follows the sums of a square: scales, bias, activation, residual, rounding.
#include "core/kernels/row_blocks.h"
#include "core/kernels/tile_linear/args.h"

namespace voxtorch::kernels {
namespace {

// gelu(x) = x Φ(x) with Φ by formula 7.1.26 of Abramowitz and Stegun, whose error is below 1.5e-7.
// Beyond it the tail is a subnormal number, which costs a hundred times as much; and infinity times it would be NaN.
constexpr float kFar = 12.5f;
constexpr float kSlope = 0.23164190f;  // 0.3275911 / √2
constexpr float kTail[] = {0.127414796f, -0.142248368f, 0.7107068705f, -0.7265760135f, 0.5307027145f};

#if defined(__AVX512F__)
// With fused multiply-adds, the processor's estimate of a quotient made exact by a step of Newton's, and a power of two
// by its exponent: a third of the time of what follows.
VOXTORCH_INLINE Floats gelu(Floats x) {
  const auto all = [](float value) { return _mm512_set1_ps(value); };
  // A NaN of x comes back with `positive`.
  const __m512 far = _mm512_min_ps(_mm512_abs_ps(x), all(kFar));
  const __m512 divisor = _mm512_fmadd_ps(far, all(kSlope), all(1.0f));
  const __m512 estimate = _mm512_rcp14_ps(divisor);
  const __m512 t = _mm512_mul_ps(estimate, _mm512_fnmadd_ps(estimate, divisor, all(2.0f)));
  const __m512 power = _mm512_mul_ps(_mm512_mul_ps(far, far), all(-0.7213475204f));  // -log2(e) / 2
  const __m512 whole = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 rest = _mm512_sub_ps(power, whole);
  __m512 e = _mm512_fmadd_ps(all(1.33335581e-3f), rest, all(9.61812911e-3f));  // 2^rest by its series
  e = _mm512_fmadd_ps(e, rest, all(5.55041087e-2f));
  e = _mm512_fmadd_ps(e, rest, all(2.40226507e-1f));
  e = _mm512_fmadd_ps(e, rest, all(6.93147181e-1f));
  e = _mm512_scalef_ps(_mm512_fmadd_ps(e, rest, all(1.0f)), whole);
  __m512 tail = _mm512_fmadd_ps(t, all(kTail[4]), all(kTail[3]));
  tail = _mm512_fmadd_ps(tail, t, all(kTail[2]));
  tail = _mm512_fmadd_ps(tail, t, all(kTail[1]));
  tail = _mm512_fmadd_ps(tail, t, all(kTail[0]));
  tail = _mm512_mul_ps(_mm512_mul_ps(tail, t), e);
  const __m512 positive = _mm512_max_ps(__m512{}, x);  // the second where one is NaN
  return _mm512_fnmadd_ps(far, tail, positive);
}
#else
VOXTORCH_INLINE Floats gelu(Floats x) {
  Floats far = x < 0 ? -x : x;
  far = far > kFar ? Floats{} + kFar : far;
  const Floats t = 1.0f / (far * kSlope + 1.0f);
  Floats tail = t * kTail[4] + kTail[3];
  tail = tail * t + kTail[2];
  tail = tail * t + kTail[1];
  tail = tail * t + kTail[0];
  tail = tail * t * exp_of(far * far * -0.5f);
  const Floats positive = x < 0 ? Floats{} : x;
  return positive - far * tail;
}
#endif

// x / (1 + e^-2u), u = √(2/π) (x + 0.044715 x³)
VOXTORCH_INLINE Floats gelu_tanh(Floats x) {
  Floats power = x * (x * x * -0.0713548163f - 1.5957691216f);
  power = power > 80.0f ? Floats{} + 80.0f : power;
  return x / (exp_of(power) + 1.0f);
}

template <typename Function>
VOXTORCH_INLINE Block each(Block x, Function function) {
  VOXTORCH_EACH_PART x.part[k] = function(x.part[k]);
  return x;
}

template <TileLinear::Activation activation>
VOXTORCH_INLINE Block activated(const Block& x) {
  using Activation = TileLinear::Activation;
  if constexpr (activation == Activation::gelu) return each(x, [](Floats v) { return gelu(v); });
  if constexpr (activation == Activation::gelu_tanh) return each(x, [](Floats v) { return gelu_tanh(v); });
  if constexpr (activation == Activation::relu) return each(x, [](Floats v) { return v < 0 ? Floats{} : v; });
  return x;
}

VOXTORCH_INLINE Block load_block(const int32_t* from) {
  Block block;
  VOXTORCH_EACH_PART {
    Ints ints;
    std::memcpy(&ints, from + k * kLanes, sizeof(ints));
    block.part[k] = __builtin_convertvector(ints, Floats);
  }
  return block;
}

VOXTORCH_INLINE void store_row(float* to, const Block& left, const Block& right) {
  store_block(to, left);
  store_block(to + kBlock, right);
}
VOXTORCH_INLINE void store_row(BFloat16* to, const Block& left, const Block& right) {
#if defined(__AVX512F__)
  const auto half = [](const Block& block) { return reinterpret_cast<__m256i>(round_to_bfloat16(block.part[0])); };
  const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(half(left)), half(right), 1);
  _mm512_storeu_si512(to, both);
#else
  store_block(to, left);
  store_block(to + kBlock, right);
#endif
}

// sums [rows, 32], which stand for the outputs [row, row + rows) x [column, column + 32).
template <TileLinear::Activation activation, typename Sum, typename T>
void finish(const TileLinear& args, const Sum* sums, int64_t row, int64_t rows, int64_t column) {
  const auto value = [&](int64_t r, int64_t at) __attribute__((always_inline)) {
    Block y = load_block(sums + r * kTileSide + at);
    if constexpr (!std::is_same_v<Sum, float>) {
      y = y * (load_block(args.column_scale + column + at) * args.row_scale[row + r]);
    }
    if (args.bias != nullptr) y = y + load_block(args.bias + column + at);
    y = activated<activation>(y);
    if (args.residual == nullptr) return y;
    return y + load_block(static_cast<const T*>(args.residual) + (row + r) * args.out + column + at);
  };
  T* const output = static_cast<T*>(args.output) + row * args.out + column;
  for (int64_t r = 0; r < rows; ++r) {
    const Block left = value(r, 0), right = value(r, kBlock);
    store_row(output + r * args.out, left, right);
  }
}

template <typename Sum, typename T>
void finish_as(const TileLinear& args, const Sum* sums, int64_t row, int64_t rows, int64_t column) {
  using Activation = TileLinear::Activation;
  switch (args.activation) {
    case Activation::none:
      return finish<Activation::none, Sum, T>(args, sums, row, rows, column);
    case Activation::gelu:
      return finish<Activation::gelu, Sum, T>(args, sums, row, rows, column);
    case Activation::gelu_tanh:
      return finish<Activation::gelu_tanh, Sum, T>(args, sums, row, rows, column);
    case Activation::relu:
      return finish<Activation::relu, Sum, T>(args, sums, row, rows, column);
  }
}

template <typename Sum>
void finish_square(const TileLinear& args, const Sum* sums, int64_t row, int64_t rows, int64_t column) {
  if (args.is_bfloat16)
    finish_as<Sum, BFloat16>(args, sums, row, rows, column);
  else
    finish_as<Sum, float>(args, sums, row, rows, column);
}

}  // namespace
}  // namespace voxtorch::kernels

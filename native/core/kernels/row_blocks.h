// Rows of float32, bfloat16, float16 and int8 in GCC/Clang vector extensions, for units that are compiled once for each
// instruction set. The build defines VOXTORCH_LANES (floats in a register). Everything is internal to the unit. Sums
// run over 16 lanes whatever the register holds, so that every build gives the same bits.

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace voxtorch::kernels {
namespace {

constexpr int kLanes = VOXTORCH_LANES;
constexpr int kBlock = 16;
constexpr int kParts = kBlock / kLanes;

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));
typedef int8_t Bytes __attribute__((vector_size(kLanes)));

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

struct Block {
  Floats part[kParts];
};

#define VOXTORCH_INLINE inline __attribute__((always_inline))
#define VOXTORCH_EACH_PART for (int k = 0; k < kParts; ++k)

// Has the value in a register at this place of the program: GCC would load it again, or make it later, where it sees
// fit.
#if defined(VOXTORCH_IN_REGISTER)
// By who emulates the instruction set.
#elif defined(__AVX512F__)
#define VOXTORCH_IN_REGISTER(value) asm("" : "+v"(value))
#elif defined(__x86_64__)
#define VOXTORCH_IN_REGISTER(value) asm("" : "+x"(value))
#else
#define VOXTORCH_IN_REGISTER(value)
#endif

VOXTORCH_INLINE Block operator+(Block a, const Block& b) {
  VOXTORCH_EACH_PART a.part[k] += b.part[k];
  return a;
}
VOXTORCH_INLINE Block operator-(Block a, const Block& b) {
  VOXTORCH_EACH_PART a.part[k] -= b.part[k];
  return a;
}
VOXTORCH_INLINE Block operator*(Block a, const Block& b) {
  VOXTORCH_EACH_PART a.part[k] *= b.part[k];
  return a;
}
VOXTORCH_INLINE Block operator*(Block a, float b) {
  VOXTORCH_EACH_PART a.part[k] *= b;
  return a;
}

// Fused where the build has an instruction for it, so that SSE's has other bits than those of AVX2, AVX-512 and NEON.
VOXTORCH_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(__AVX2__)
  return reinterpret_cast<Floats>(
      _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#elif defined(__aarch64__)
  return reinterpret_cast<Floats>(
      vfmaq_f32(reinterpret_cast<float32x4_t>(c), reinterpret_cast<float32x4_t>(a), reinterpret_cast<float32x4_t>(b)));
#else
  return a * b + c;
#endif
}

typedef float Four __attribute__((vector_size(16)));

// Lane i of 16 is added to lane i + 8, then i to i + 4: four sums remain.
VOXTORCH_INLINE Four folded(const Block& block) {
#if defined(__AVX512F__)
  const __m512 all = reinterpret_cast<__m512>(block.part[0]);
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
#elif defined(__AVX2__)
  const __m256 eight = reinterpret_cast<__m256>(block.part[0] + block.part[1]);
#endif
#if defined(__AVX2__)
  return reinterpret_cast<Four>(_mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1)));
#else
  return (block.part[0] + block.part[2]) + (block.part[1] + block.part[3]);
#endif
}

VOXTORCH_INLINE float sum(const Block& block) {
  const Four four = folded(block);
  return (four[0] + four[2]) + (four[1] + four[3]);
}

// The larger of each; a NaN in b leaves a.
VOXTORCH_INLINE Block larger(Block a, const Block& b) {
  VOXTORCH_EACH_PART a.part[k] = b.part[k] > a.part[k] ? b.part[k] : a.part[k];
  return a;
}

VOXTORCH_INLINE float largest(const Block& block) {
  float lanes[kBlock];
  std::memcpy(lanes, &block, sizeof(lanes));
  float result = lanes[0];
  for (int i = 1; i < kBlock; ++i) result = lanes[i] > result ? lanes[i] : result;
  return result;
}

VOXTORCH_INLINE Floats load_part(const float* from) {
  Floats part;
  std::memcpy(&part, from, sizeof(part));
  return part;
}
VOXTORCH_INLINE void store_block(float* to, const Block& block) {
  VOXTORCH_EACH_PART std::memcpy(to + k * kLanes, &block.part[k], sizeof(Floats));
}

// GCC makes conversions between vectors of these widths in halves of halves.
VOXTORCH_INLINE Words widened(Halves halves) {
#if defined(__AVX512F__)
  return reinterpret_cast<Words>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(halves)));
#elif defined(__AVX2__)
  return reinterpret_cast<Words>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(halves)));
#else
  return __builtin_convertvector(halves, Words);
#endif
}
// Of words below 2^16.
VOXTORCH_INLINE Halves narrowed(Words words) {
#if defined(__AVX512F__)
  return reinterpret_cast<Halves>(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(words)));
#elif defined(__AVX2__)
  const __m256i packed = _mm256_packus_epi32(reinterpret_cast<__m256i>(words), reinterpret_cast<__m256i>(words));
  return reinterpret_cast<Halves>(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
#else
  return __builtin_convertvector(words, Halves);
#endif
}

VOXTORCH_INLINE Floats load_part(const BFloat16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  return reinterpret_cast<Floats>(widened(halves) << 16);
}

#if !defined(__F16C__)
VOXTORCH_INLINE float float_of_half(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16, rest = bits & 0x7fffu;
  uint32_t word = (rest << 13) + 0x38000000u;  // the exponent's bias is 112 larger
  float value = static_cast<float>(rest) * 0x1p-24f;
  if (rest < 0x400u)  // subnormal
    std::memcpy(&word, &value, sizeof(word));
  else if (rest >= 0x7c00u)
    word = rest << 13 | 0x7f800000u | (rest > 0x7c00u ? 0x400000u : 0);
  word |= sign;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}
VOXTORCH_INLINE uint16_t half_of_float(float value) {
  uint32_t word;
  std::memcpy(&word, &value, sizeof(word));
  const uint32_t sign = (word >> 16) & 0x8000u;
  word &= 0x7fffffffu;
  if (word > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((word >> 13) & 0x3ffu));
  if (word >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (word < 0x38800000u) {  // subnormal: adding this leaves 24 fractional bits
    float rest;
    std::memcpy(&rest, &word, sizeof(rest));
    rest += 0.5f;
    std::memcpy(&word, &rest, sizeof(word));
    return static_cast<uint16_t>(sign | (word - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | ((word - 0x38000000u + 0xfffu + ((word >> 13) & 1u)) >> 13));
}
#endif

VOXTORCH_INLINE Floats floats_of_halves(Halves halves) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_cvtph_ps(reinterpret_cast<__m256i>(halves)));
#elif defined(__F16C__)
  return reinterpret_cast<Floats>(_mm256_cvtph_ps(reinterpret_cast<__m128i>(halves)));
#else
  Floats values;
  for (int lane = 0; lane < kLanes; ++lane) values[lane] = float_of_half(halves[lane]);
  return values;
#endif
}

VOXTORCH_INLINE Floats load_part(const Float16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  return floats_of_halves(halves);
}
// Round to nearest, ties to even.
VOXTORCH_INLINE void store_block(Float16* to, const Block& block) {
  VOXTORCH_EACH_PART {
#if defined(__AVX512F__)
    const auto halves = reinterpret_cast<Halves>(
        _mm512_cvtps_ph(reinterpret_cast<__m512>(block.part[k]), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
    const auto halves = reinterpret_cast<Halves>(
        _mm256_cvtps_ph(reinterpret_cast<__m256>(block.part[k]), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
    Halves halves;
    for (int lane = 0; lane < kLanes; ++lane) halves[lane] = half_of_float(block.part[k][lane]);
#endif
    std::memcpy(to + k * kLanes, &halves, sizeof(halves));
  }
}

VOXTORCH_INLINE Floats load_part(const int8_t* from) {
  Bytes bytes;
  std::memcpy(&bytes, from, sizeof(bytes));
  // GCC takes the bytes apart one by one for a conversion between vectors.
#if defined(__AVX512F__)
  const auto ints = reinterpret_cast<Ints>(_mm512_cvtepi8_epi32(reinterpret_cast<__m128i>(bytes)));
#elif defined(__AVX2__)
  const auto ints = reinterpret_cast<Ints>(_mm256_cvtepi8_epi32(_mm_set_epi64x(0, reinterpret_cast<long long>(bytes))));
#else
  const Ints ints = __builtin_convertvector(bytes, Ints);
#endif
  return __builtin_convertvector(ints, Floats);
}

// Part by part: GCC copies a block of several in pieces of 16 bytes by way of the stack, and waits for them there.
template <typename T>
VOXTORCH_INLINE Block load_block(const T* from) {
  Block block;
  VOXTORCH_EACH_PART block.part[k] = load_part(from + k * kLanes);
  return block;
}

// Round to nearest, ties to even; every NaN becomes the quiet one.
VOXTORCH_INLINE Halves round_to_bfloat16(Floats value) {
  Words words;
  std::memcpy(&words, &value, sizeof(words));
  const Words rounded = (words + 0x7fffu + ((words >> 16) & 1u)) >> 16;
  const Words is_nan = reinterpret_cast<Words>(value != value);
  return narrowed((rounded & ~is_nan) | (0x7fc0u & is_nan));
}
VOXTORCH_INLINE void store_block(BFloat16* to, const Block& block) {
  VOXTORCH_EACH_PART {
    const Halves halves = round_to_bfloat16(block.part[k]);
    std::memcpy(to + k * kLanes, &halves, sizeof(halves));
  }
}

// `count` is kBlock but for the last block of a row; missing lanes are zero.
template <typename T>
VOXTORCH_INLINE Block load(const T* from, int64_t count) {
  if (count == kBlock) return load_block(from);
  T lanes[kBlock] = {};
  std::memcpy(lanes, from, count * sizeof(T));
  return load_block(lanes);
}
template <typename T>
VOXTORCH_INLINE void store(T* to, const Block& block, int64_t count) {
  if (count == kBlock) return store_block(to, block);
  T lanes[kBlock];
  store_block(lanes, block);
  std::memcpy(to, lanes, count * sizeof(T));
}

template <typename Body>
VOXTORCH_INLINE void each_block(int64_t dim, Body body) {
  int64_t at = 0;
  for (; at + kBlock <= dim; at += kBlock) body(at, kBlock);
  if (at < dim) body(at, dim - at);
}

VOXTORCH_INLINE Block first(const Block& block, int64_t count) {
  if (count == kBlock) return block;
  float lanes[kBlock] = {};
  std::memcpy(lanes, &block, count * sizeof(float));
  return load_block(lanes);
}

// The sum of `block(at, count)` over a row, in four chains: one would wait for each addition before the next.
template <typename BlockAt>
VOXTORCH_INLINE float sum_of(int64_t dim, BlockAt block) {
  Block a = {}, b = {}, c = {}, d = {};
  int64_t at = 0;
  for (; at + 4 * kBlock <= dim; at += 4 * kBlock) {
    a = a + block(at, kBlock);
    b = b + block(at + kBlock, kBlock);
    c = c + block(at + 2 * kBlock, kBlock);
    d = d + block(at + 3 * kBlock, kBlock);
  }
  for (; at < dim; at += kBlock) a = a + block(at, dim - at < kBlock ? dim - at : kBlock);
  return sum((a + b) + (c + d));
}

VOXTORCH_INLINE Block all(float value) {
  Block block;
  VOXTORCH_EACH_PART block.part[k] = Floats{} + value;
  return block;
}

VOXTORCH_INLINE Words bits_of(Floats value) { return reinterpret_cast<Words>(value); }
VOXTORCH_INLINE Floats floats_of(Words bits) { return reinterpret_cast<Floats>(bits); }

// e to a power of at most 88: 2^n times a polynomial in what is left, below 2 ulp. Powers below -87 give zero (the
// smallest normal number is e^-87.3), NaN gives NaN.
VOXTORCH_INLINE Floats exp_of(Floats x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const Floats shifted = x * 1.44269504088896341f + kRound;
  const Floats n = shifted - kRound;
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, the first one exact times n
  Floats y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + r + 1.0f;
  const Words power = bits_of(y) + (bits_of(shifted) << 23);
  const Words in_range = reinterpret_cast<Words>(x >= -87.0f);
  const Words is_nan = reinterpret_cast<Words>(x != x);
  return floats_of((power & in_range) | is_nan);
}

VOXTORCH_INLINE Block exp_of(Block x) {
  VOXTORCH_EACH_PART x.part[k] = exp_of(x.part[k]);
  return x;
}

}  // namespace
}  // namespace voxtorch::kernels

// The int8 squares for processors without AMX, and the rows of codes, compiled once for each instruction set
// (../builds.h).
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <type_traits>

#include "core/kernels/tile_linear/finish.h"

namespace voxtorch::kernels {
namespace {

#if defined(__AVX512BW__)
constexpr int kGroup = 8;
#elif defined(__AVX2__) || !defined(__SSE4_1__)
constexpr int kGroup = 4;
#else
constexpr int kGroup = 2;
#endif

// Inputs of a group of rows, each four as (0, 2) and (1, 3) in 16 bits: products of those two and their sum are one
// instruction, and exact.
struct Pairs {
  int16_t value[4];
};
VOXTORCH_INLINE void spread(const int8_t* from, int64_t in, Pairs* to, int64_t stride) {
  for (int64_t q = 0; q < in / 4; ++q) {
    to[q * stride] = {from[4 * q], from[4 * q + 2], from[4 * q + 1], from[4 * q + 3]};
  }
}

// sums[r][16] of one group of rows and 16 outputs; `tiles` are 2 KB apart.
#if defined(__SSE4_1__)
VOXTORCH_INLINE void sum_group(const Pairs* inputs, const int8_t* tiles, int64_t steps, int32_t* sums) {
#if defined(__AVX512BW__)
  constexpr int kWide = 1;
  using Wide = __m512i;
#define VOXTORCH_WIDE(name, ...) _mm512_##name(__VA_ARGS__)
#define VOXTORCH_LOAD(from) _mm512_loadu_si512(from)
#define VOXTORCH_STORE(to, value) _mm512_storeu_si512(to, value)
#elif defined(__AVX2__)
  constexpr int kWide = 2;
  using Wide = __m256i;
#define VOXTORCH_WIDE(name, ...) _mm256_##name(__VA_ARGS__)
#define VOXTORCH_LOAD(from) _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))
#define VOXTORCH_STORE(to, value) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), value)
#else
  constexpr int kWide = 4;
  using Wide = __m128i;
#define VOXTORCH_WIDE(name, ...) _mm_##name(__VA_ARGS__)
#define VOXTORCH_LOAD(from) _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))
#define VOXTORCH_STORE(to, value) _mm_storeu_si128(reinterpret_cast<__m128i*>(to), value)
#endif
  Wide total[kGroup][kWide];
  for (auto& row : total) {
    for (Wide& part : row) part = Wide{};
  }
  for (int64_t s = 0; s < steps; ++s) {
    for (int q = 0; q < 16; ++q) {
      Wide even[kWide], odd[kWide];
      for (int p = 0; p < kWide; ++p) {
        const Wide codes = VOXTORCH_LOAD(tiles + s * 2048 + q * 64 + p * sizeof(Wide));
        even[p] = VOXTORCH_WIDE(srai_epi16, VOXTORCH_WIDE(slli_epi16, codes, 8), 8);
        odd[p] = VOXTORCH_WIDE(srai_epi16, codes, 8);
      }
      for (int r = 0; r < kGroup; ++r) {
        int32_t pair[2];
        std::memcpy(pair, inputs + (s * 16 + q) * kGroup + r, sizeof(pair));
        const Wide first = VOXTORCH_WIDE(set1_epi32, pair[0]), second = VOXTORCH_WIDE(set1_epi32, pair[1]);
        for (int p = 0; p < kWide; ++p) {
          total[r][p] = VOXTORCH_WIDE(add_epi32, total[r][p], VOXTORCH_WIDE(madd_epi16, even[p], first));
          total[r][p] = VOXTORCH_WIDE(add_epi32, total[r][p], VOXTORCH_WIDE(madd_epi16, odd[p], second));
        }
      }
    }
  }
  for (int r = 0; r < kGroup; ++r) {
    for (int p = 0; p < kWide; ++p) VOXTORCH_STORE(sums + r * kTileSide + p * (16 / kWide), total[r][p]);
  }
#undef VOXTORCH_WIDE
#undef VOXTORCH_LOAD
#undef VOXTORCH_STORE
}
#else
VOXTORCH_INLINE void sum_group(const Pairs* inputs, const int8_t* tiles, int64_t steps, int32_t* sums) {
  for (int r = 0; r < kGroup; ++r) std::memset(sums + r * kTileSide, 0, 16 * sizeof(int32_t));
  for (int64_t s = 0; s < steps; ++s) {
    for (int q = 0; q < 16; ++q) {
      const int8_t* codes = tiles + s * 2048 + q * 64;
      for (int r = 0; r < kGroup; ++r) {
        const Pairs& in = inputs[(s * 16 + q) * kGroup + r];
        int32_t* sum = sums + r * kTileSide;
        for (int o = 0; o < 16; ++o) {
          sum[o] += codes[4 * o] * in.value[0] + codes[4 * o + 1] * in.value[2] + codes[4 * o + 2] * in.value[1] +
                    codes[4 * o + 3] * in.value[3];
        }
      }
    }
  }
}
#endif

}  // namespace

void VOXTORCH_BUILD(tile_linear)(const TileLinear& args, int64_t begin, int64_t end, int64_t from, int64_t to) {
  const int64_t steps = args.in / kTileStep;
  const auto* input = static_cast<const int8_t*>(args.input);
  auto* inputs = new Pairs[args.in / 4 * kGroup];
  int32_t sums[kGroup * kTileSide];
  for (int64_t row = begin; row < end; row += kGroup) {
    const int64_t rows = end - row < kGroup ? end - row : kGroup;
    std::memset(inputs, 0, args.in / 4 * kGroup * sizeof(Pairs));
    for (int64_t r = 0; r < rows; ++r) spread(input + (row + r) * args.in, args.in, inputs + r, kGroup);
    for (int64_t column = from; column < to; column += kTileSide) {
      const auto* tiles = static_cast<const int8_t*>(args.weight) + column * args.in;
      sum_group(inputs, tiles, steps, sums);
      sum_group(inputs, tiles + 1024, steps, sums + 16);
      finish_square(args, sums, row, rows, column);
    }
  }
  delete[] inputs;
}

namespace {

template <typename T>
VOXTORCH_INLINE void quantize_row(const T* input, int8_t* codes, float* scale, int64_t in) {
  Block top = {}, wrong = {};
  each_block(
      in, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
        const Block x = load(input + at, count);
        wrong = wrong + x * 0.0f;  // NaN of NaN and of infinity
        VOXTORCH_EACH_PART {
          const Floats far = x.part[k] < 0 ? -x.part[k] : x.part[k];
          top.part[k] = far > top.part[k] ? far : top.part[k];
        }
      });
  float lanes[kBlock], largest = 0;
  store_block(lanes, top);
  for (const float lane : lanes) largest = lane > largest ? lane : largest;
  const float share = largest / 127.0f, not_finite = sum(wrong);
  *scale = share + not_finite;
  const float factor = share > 0 && not_finite == 0 ? 127.0f / largest : 0.0f;
  each_block(
      in, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
        const Block x = load(input + at, count) * factor;
        int8_t bytes[kBlock];
        VOXTORCH_EACH_PART {
          // The nearest integer in the low bits, ties to even.
          const Ints whole = reinterpret_cast<Ints>(x.part[k] + 12582912.0f);
          const Bytes narrow = __builtin_convertvector(whole, Bytes);
          std::memcpy(bytes + k * kLanes, &narrow, sizeof(narrow));
        }
        std::memcpy(codes + at, bytes, count);
      });
}

}  // namespace

void VOXTORCH_BUILD(quantize_rows)(const RowCodes& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    int8_t* const codes = args.codes + row * args.in;
    if (args.is_bfloat16)
      quantize_row(static_cast<const BFloat16*>(args.input) + row * args.in, codes, args.scale + row, args.in);
    else
      quantize_row(static_cast<const float*>(args.input) + row * args.in, codes, args.scale + row, args.in);
  }
}

}  // namespace voxtorch::kernels

#if defined(__AVX512F__)
namespace voxtorch::kernels {
namespace {

constexpr int kTall = 8;

// Four products and their sum are one instruction, of unsigned inputs: those come with 128 added, and each output's sum
// begins at -128 times that of its weights.
__attribute__((target("avx512vnni"))) void sum_tall(const int32_t* inputs, const int8_t* tiles, int64_t steps,
                                                    int32_t* sums) {
  const __m512i ones = _mm512_set1_epi8(1);
  for (int half = 0; half < 2; ++half) {
    __m512i total[kTall], of_weights = __m512i{};
    for (__m512i& row : total) row = __m512i{};
    for (int64_t s = 0; s < steps; ++s) {
      for (int q = 0; q < 16; ++q) {
        const __m512i codes = _mm512_loadu_si512(tiles + s * 2048 + half * 1024 + q * 64);
        of_weights = _mm512_dpbusd_epi32(of_weights, ones, codes);
        for (int r = 0; r < kTall; ++r) {
          total[r] = _mm512_dpbusd_epi32(total[r], _mm512_set1_epi32(inputs[(s * 16 + q) * kTall + r]), codes);
        }
      }
    }
    const __m512i added = _mm512_slli_epi32(of_weights, 7);
    for (int r = 0; r < kTall; ++r) {
      _mm512_storeu_si512(sums + r * kTileSide + half * 16, _mm512_sub_epi32(total[r], added));
    }
  }
}

}  // namespace

void tile_linear_vnni(const TileLinear& args, int64_t begin, int64_t end, int64_t from, int64_t to) {
  const auto* input = static_cast<const int8_t*>(args.input);
  auto* inputs = new int32_t[args.in / 4 * kTall];
  int32_t sums[kTall * kTileSide];
  for (int64_t row = begin; row < end; row += kTall) {
    const int64_t rows = end - row < kTall ? end - row : kTall;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t q = 0; q < args.in / 4; ++q) {
        uint32_t four;
        std::memcpy(&four, input + (row + r) * args.in + 4 * q, sizeof(four));
        inputs[q * kTall + r] = static_cast<int32_t>(four ^ 0x80808080u);
      }
    }
    for (int64_t r = rows; r < kTall; ++r) {
      for (int64_t q = 0; q < args.in / 4; ++q) inputs[q * kTall + r] = 0;
    }
    for (int64_t column = from; column < to; column += kTileSide) {
      sum_tall(inputs, static_cast<const int8_t*>(args.weight) + column * args.in, args.in / kTileStep, sums);
      finish_square(args, sums, row, rows, column);
    }
  }
  delete[] inputs;
}

}  // namespace voxtorch::kernels
#endif

#if defined(__AVX512F__)
#define VOXTORCH_LANES 16
#define VOXTORCH_SQUARES tile_linear_avx512
#define VOXTORCH_QUANTIZE quantize_rows_avx512
#include "core/kernels/tile_linear/rows.h"

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

// Squares by AMX: four tiles of 16 x 16 sums stay in registers while the inputs go by.
#include <type_traits>

#include "core/kernels/tile_linear/finish.h"

namespace voxtorch::kernels {
namespace {

constexpr int64_t kColumnsTogether = 4 * kTileSide;
constexpr int64_t kStepsTogether = 16;

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles 0 and 1 are the sums of the upper rows, 2 and 3 of the lower; 4 and 5 inputs, 6 and 7 weights.
void configure(int64_t rows) {
  TileConfig config;
  const auto upper = static_cast<uint8_t>(rows < 16 ? rows : 16);
  const auto lower = static_cast<uint8_t>(rows <= 16 ? 1 : rows - 16);
  for (int t = 0; t < 8; ++t) {
    config.bytes[t] = 64;
    config.rows[t] = t >= 6 ? 16 : t == 0 || t == 1 || t == 4 ? upper : lower;
  }
  // To GCC the instruction reads only the first bytes.
  __asm__ volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
}

// A tile is named by a literal, which a function's argument is not.
#define VOXTORCH_DOT(sums, inputs, weights) \
  if constexpr (std::is_same_v<Sum, float>) \
    _tile_dpbf16ps(sums, inputs, weights);  \
  else                                      \
    _tile_dpbssd(sums, inputs, weights)

template <typename Sum, bool is_tall>
VOXTORCH_INLINE void add_steps(const char* input, int64_t stride, const char* weight, int64_t steps, Sum* sums,
                               bool is_first) {
  constexpr int64_t kSumStride = kTileSide * sizeof(Sum);
  if (is_first) {
    _tile_zero(0);
    _tile_zero(1);
    if (is_tall) {
      _tile_zero(2);
      _tile_zero(3);
    }
  } else {
    _tile_loadd(0, sums, kSumStride);
    _tile_loadd(1, sums + 16, kSumStride);
    if (is_tall) {
      _tile_loadd(2, sums + 16 * kTileSide, kSumStride);
      _tile_loadd(3, sums + 16 * kTileSide + 16, kSumStride);
    }
  }
  const char* const lower = input + 16 * stride;
  for (int64_t s = 0; s < steps; ++s) {
    _tile_loadd(4, input + s * kTileStep, stride);
    _tile_loadd(6, weight + s * 2048, 64);
    _tile_loadd(7, weight + s * 2048 + 1024, 64);
    if (is_tall) _tile_loadd(5, lower + s * kTileStep, stride);
    VOXTORCH_DOT(0, 4, 6);
    VOXTORCH_DOT(1, 4, 7);
    if constexpr (is_tall) {
      VOXTORCH_DOT(2, 5, 6);
      VOXTORCH_DOT(3, 5, 7);
    }
  }
  _tile_stored(0, sums, kSumStride);
  _tile_stored(1, sums + 16, kSumStride);
  if (is_tall) {
    _tile_stored(2, sums + 16 * kTileSide, kSumStride);
    _tile_stored(3, sums + 16 * kTileSide + 16, kSumStride);
  }
}

#undef VOXTORCH_DOT

// A strip of rows by some outputs: its inputs of some steps stay in the first cache while the weights, which the strips
// of a task share in the second, stream by.
template <typename Sum>
void squares(const TileLinear& args, int64_t begin, int64_t end, int64_t from, int64_t to) {
  const int64_t stride = args.in * (std::is_same_v<Sum, float> ? 2 : 1);  // bytes
  const int64_t steps = stride / kTileStep;
  alignas(64) Sum sums[kColumnsTogether * kTileSide];
  int64_t configured = 0;
  for (int64_t left = from; left < to; left += kColumnsTogether) {
    const int64_t right = to - left < kColumnsTogether ? to : left + kColumnsTogether;
    for (int64_t row = begin; row < end; row += kTileSide) {
      const int64_t rows = end - row < kTileSide ? end - row : kTileSide;
      if (rows != configured) configure(configured = rows);
      for (int64_t step = 0; step < steps; step += kStepsTogether) {
        const int64_t count = steps - step < kStepsTogether ? steps - step : kStepsTogether;
        const char* const input = static_cast<const char*>(args.input) + row * stride + step * kTileStep;
        for (int64_t column = left; column < right; column += kTileSide) {
          const char* const weight = static_cast<const char*>(args.weight) + column * stride + step * 2048;
          Sum* const square = sums + (column - left) * kTileSide;
          if (rows > 16)
            add_steps<Sum, true>(input, stride, weight, count, square, step == 0);
          else
            add_steps<Sum, false>(input, stride, weight, count, square, step == 0);
          if (step + count == steps) finish_square(args, square, row, rows, column);
        }
      }
    }
  }
  _tile_release();
}

}  // namespace

void tile_linear_amx(const TileLinear& args, int64_t begin, int64_t end, int64_t from, int64_t to) {
  if (args.type == TileLinear::Type::int8)
    squares<int32_t>(args, begin, end, from, to);
  else
    squares<float>(args, begin, end, from, to);
}

}  // namespace voxtorch::kernels

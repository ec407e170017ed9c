// The blocks of a float32 product, compiled once for each instruction set (../builds.h). Each element of the result is
// one chain of fused multiply-adds over the depth, so its bits depend neither on its place nor on who computes it.
#include "core/kernels/float_product/args.h"

#if defined(__AVX2__)
#include <immintrin.h>

#include <algorithm>

namespace voxtorch::kernels {
namespace {

#if defined(__AVX512F__)
using Lanes = __m512;
constexpr int kLanes = 16;
constexpr int kRows = 8;
inline Lanes load(const float* from) { return _mm512_loadu_ps(from); }
inline void store(float* to, Lanes value) { _mm512_storeu_ps(to, value); }
inline Lanes zero() { return _mm512_setzero_ps(); }
inline Lanes each(float value) { return _mm512_set1_ps(value); }
inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }
inline Lanes plus(Lanes a, Lanes b) { return _mm512_add_ps(a, b); }
#else
using Lanes = __m256;
constexpr int kLanes = 8;
constexpr int kRows = 4;
inline Lanes load(const float* from) { return _mm256_loadu_ps(from); }
inline void store(float* to, Lanes value) { _mm256_storeu_ps(to, value); }
inline Lanes zero() { return _mm256_setzero_ps(); }
inline Lanes each(float value) { return _mm256_set1_ps(value); }
inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm256_fmadd_ps(a, b, c); }
inline Lanes plus(Lanes a, Lanes b) { return _mm256_add_ps(a, b); }
#endif

// Registers: kRows * kVectors sums, kVectors of the right panel and one of the left.
constexpr int kVectors = 3;
constexpr int kColumns = kVectors * kLanes;

// Four rows of `from`, `stride` apart, become columns of `to`, `width` apart; for a multiple of four depths.
inline void transpose_four(const float* from, int64_t stride, int64_t depth, float* to, int width) {
  for (int64_t d = 0; d < depth; d += 4) {
    __m128 a = _mm_loadu_ps(from + d), b = _mm_loadu_ps(from + stride + d);
    __m128 c = _mm_loadu_ps(from + 2 * stride + d), e = _mm_loadu_ps(from + 3 * stride + d);
    _MM_TRANSPOSE4_PS(a, b, c, e);
    _mm_storeu_ps(to + d * width, a);
    _mm_storeu_ps(to + (d + 1) * width, b);
    _mm_storeu_ps(to + (d + 2) * width, c);
    _mm_storeu_ps(to + (d + 3) * width, e);
  }
}

// Panels of kWidth lines of a matrix: lines `line_stride` apart, their elements `stride`.
template <int kWidth>
void pack(const float* from, int64_t line_stride, int64_t stride, int64_t lines, int64_t depth, float* to) {
  for (int64_t first = 0; first < lines; first += kWidth, to += depth * kWidth) {
    const int count = static_cast<int>(std::min<int64_t>(kWidth, lines - first));
    const float* const panel = from + first * line_stride;
    if (count == kWidth && line_stride == 1) {
      for (int64_t d = 0; d < depth; ++d) {
        for (int i = 0; i < kWidth; ++i) to[d * kWidth + i] = panel[d * stride + i];
      }
      continue;
    }
    int line = 0;
    if (stride == 1) {
      const int64_t fours = depth / 4 * 4;
      for (; line + 4 <= count; line += 4) {
        transpose_four(panel + line * line_stride, line_stride, fours, to + line, kWidth);
        for (int64_t d = fours; d < depth; ++d) {
          for (int i = line; i < line + 4; ++i) to[d * kWidth + i] = panel[i * line_stride + d];
        }
      }
    }
    for (; line < kWidth; ++line) {
      for (int64_t d = 0; d < depth; ++d) {
        to[d * kWidth + line] = line < count ? panel[line * line_stride + d * stride] : 0.0f;
      }
    }
  }
}

void pack_rows(const FloatMatrix& from, int64_t rows, int64_t depth, float* to) {
  pack<kRows>(from.data, from.row_stride, from.column_stride, rows, depth, to);
}

void pack_columns(const FloatMatrix& from, int64_t columns, int64_t depth, float* to) {
  pack<kColumns>(from.data, from.column_stride, from.row_stride, columns, depth, to);
}

// One panel of rows times kUsed vectors of one panel of columns.
template <int kUsed>
inline void multiply_panels(const float* left, const float* right, int64_t depth, Lanes (&sums)[kRows][kVectors]) {
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kUsed; ++v) sums[r][v] = zero();
  }
  for (int64_t d = 0; d < depth; ++d, left += kRows, right += kColumns) {
    Lanes columns[kUsed];
    for (int v = 0; v < kUsed; ++v) columns[v] = load(right + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Lanes row = each(left[r]);
      for (int v = 0; v < kUsed; ++v) sums[r][v] = multiply_add(row, columns[v], sums[r][v]);
    }
  }
}

template <int kUsed>
void multiply_panel(const float* left, const float* right, int64_t rows, int64_t columns, int64_t depth, bool add,
                    float* to, int64_t stride) {
  for (int64_t first = 0; first < rows; first += kRows, left += depth * kRows) {
    Lanes sums[kRows][kVectors];
    multiply_panels<kUsed>(left, right, depth, sums);
    const int64_t count = std::min<int64_t>(kRows, rows - first);
    float* const corner = to + first * stride;
    if (columns == kUsed * kLanes) {
      for (int r = 0; r < kRows; ++r) {
        if (r >= count) break;
        for (int v = 0; v < kUsed; ++v) {
          float* const place = corner + r * stride + v * kLanes;
          store(place, add ? plus(load(place), sums[r][v]) : sums[r][v]);
        }
      }
      continue;
    }
    float line[kColumns] = {};
    for (int r = 0; r < kRows; ++r) {
      if (r >= count) break;
      for (int v = 0; v < kUsed; ++v) store(line + v * kLanes, sums[r][v]);
      float* const place = corner + r * stride;
      for (int64_t c = 0; c < columns; ++c) place[c] = add ? place[c] + line[c] : line[c];
    }
  }
}

void multiply(const float* left, const float* right, int64_t rows, int64_t columns, int64_t depth, bool add, float* to,
              int64_t stride) {
  // A panel of columns stays in the first cache while the rows pass.
  for (int64_t first = 0; first < columns; first += kColumns, right += depth * kColumns, to += kColumns) {
    const int64_t count = std::min<int64_t>(kColumns, columns - first);
    if (count > 2 * kLanes) {
      multiply_panel<3>(left, right, rows, count, depth, add, to, stride);
    } else if (count > kLanes) {
      multiply_panel<2>(left, right, rows, count, depth, add, to, stride);
    } else {
      multiply_panel<1>(left, right, rows, count, depth, add, to, stride);
    }
  }
}

}  // namespace

const FloatProductBuild VOXTORCH_BUILD(float_product) = {kRows, kColumns, pack_rows, pack_columns, multiply};

}  // namespace voxtorch::kernels
#endif

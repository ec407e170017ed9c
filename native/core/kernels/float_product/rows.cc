// The blocks of a float32 product, compiled once for each instruction set (../builds.h). Each element of the result is
// one chain of fused multiply-adds over a block of the depth, so its bits depend neither on its place nor on who
// computes it. Thin products have other blocks, and add the bias at the end: other bits than the same row among more
// than 192.
#include "core/kernels/float_product/args.h"

#if defined(__AVX2__)
#include <immintrin.h>

#include <algorithm>
#include <type_traits>

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

// Elements of a matrix, as float32: one, four and eight that follow each other.
struct Float32 {
  using Element = float;
  static float one(const float* from) { return *from; }
  static __m128 four(const float* from) { return _mm_loadu_ps(from); }
  static __m256 eight(const float* from) { return _mm256_loadu_ps(from); }
};
struct BFloat16 {
  using Element = uint16_t;
  static float one(const uint16_t* from) { return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(*from << 16))); }
  static __m128 four(const uint16_t* from) {
    const __m128i halves = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(halves), 16));
  }
  static __m256 eight(const uint16_t* from) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
};
struct Float16 {
  using Element = uint16_t;
  static float one(const uint16_t* from) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(*from))); }
  static __m128 four(const uint16_t* from) {
    return _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  }
  static __m256 eight(const uint16_t* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
};

// Four rows of `from`, `stride` apart, become columns of `to`, `width` apart; for a multiple of four depths.
template <typename Kind>
inline void transpose_four(const typename Kind::Element* from, int64_t stride, int64_t depth, float* to, int width) {
  for (int64_t d = 0; d < depth; d += 4) {
    __m128 a = Kind::four(from + d), b = Kind::four(from + stride + d);
    __m128 c = Kind::four(from + 2 * stride + d), e = Kind::four(from + 3 * stride + d);
    _MM_TRANSPOSE4_PS(a, b, c, e);
    _mm_storeu_ps(to + d * width, a);
    _mm_storeu_ps(to + (d + 1) * width, b);
    _mm_storeu_ps(to + (d + 2) * width, c);
    _mm_storeu_ps(to + (d + 3) * width, e);
  }
}

// Panels of kWidth lines of a matrix: lines `line_stride` apart, their elements `stride`.
template <int kWidth, typename Kind>
void pack_kind(const typename Kind::Element* from, int64_t line_stride, int64_t stride, int64_t lines, int64_t depth,
               float* to) {
  for (int64_t first = 0; first < lines; first += kWidth, to += depth * kWidth) {
    const int count = static_cast<int>(std::min<int64_t>(kWidth, lines - first));
    const auto* const panel = from + first * line_stride;
    if (count == kWidth && line_stride == 1) {
      for (int64_t d = 0; d < depth; ++d) {
        if constexpr (kWidth % 8 == 0) {
          for (int i = 0; i < kWidth; i += 8)
            _mm256_storeu_ps(to + d * kWidth + i, Kind::eight(panel + d * stride + i));
        } else {
          for (int i = 0; i < kWidth; i += 4) _mm_storeu_ps(to + d * kWidth + i, Kind::four(panel + d * stride + i));
        }
      }
      continue;
    }
    int line = 0;
    if (stride == 1) {
      const int64_t fours = depth / 4 * 4;
      for (; line + 4 <= count; line += 4) {
        transpose_four<Kind>(panel + line * line_stride, line_stride, fours, to + line, kWidth);
        for (int64_t d = fours; d < depth; ++d) {
          for (int i = line; i < line + 4; ++i) to[d * kWidth + i] = Kind::one(panel + i * line_stride + d);
        }
      }
    }
    for (; line < kWidth; ++line) {
      for (int64_t d = 0; d < depth; ++d) {
        to[d * kWidth + line] = line < count ? Kind::one(panel + line * line_stride + d * stride) : 0.0f;
      }
    }
  }
}

template <int kWidth>
void pack(const FloatMatrix& from, int64_t line_stride, int64_t stride, int64_t lines, int64_t depth, float* to) {
  switch (from.kind) {
    case FloatKind::kFloat32:
      return pack_kind<kWidth, Float32>(static_cast<const float*>(from.data), line_stride, stride, lines, depth, to);
    case FloatKind::kBFloat16:
      return pack_kind<kWidth, BFloat16>(static_cast<const uint16_t*>(from.data), line_stride, stride, lines, depth,
                                         to);
    case FloatKind::kFloat16:
      return pack_kind<kWidth, Float16>(static_cast<const uint16_t*>(from.data), line_stride, stride, lines, depth, to);
  }
}

void pack_rows(const FloatMatrix& from, int64_t rows, int64_t depth, float* to) {
  pack<kRows>(from, from.row_stride, from.column_stride, rows, depth, to);
}

void pack_columns(const FloatMatrix& from, int64_t columns, int64_t depth, float* to) {
  pack<kColumns>(from, from.column_stride, from.row_stride, columns, depth, to);
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

// Registers of a thin product: kThinOutputs * 2 sums, 2 of the panel and one of the weights.
#if defined(__AVX512F__)
constexpr int kThinOutputs = 8;
#else
constexpr int kThinOutputs = 6;
#endif
constexpr int kThinRows = 2 * kLanes;
// The panels of this depth stay in the second cache, the weights in the first.
constexpr int64_t kThinDepth = 512;

int64_t thin_width(int64_t rows) { return rows > kLanes ? kThinRows : kLanes; }

void pack_thin(const FloatMatrix& from, int64_t rows, int64_t depth, float* to) {
  for (int64_t first = 0; first < rows; first += kThinRows, to += kThinRows * depth) {
    const int64_t count = std::min<int64_t>(kThinRows, rows - first);
    const FloatMatrix part = from.from(first, 0);
    if (count > kLanes) {
      pack<kThinRows>(part, from.row_stride, from.column_stride, count, depth, to);
    } else {
      pack<kLanes>(part, from.row_stride, from.column_stride, count, depth, to);
    }
  }
}

template <int kUsed>
void multiply_thin_panel(const float* panel, const float* const (&weights)[kThinOutputs], int64_t depth, bool add,
                         int64_t outputs, float* to, int64_t stride) {
  Lanes sums[kThinOutputs][kUsed];
  for (int o = 0; o < kThinOutputs; ++o) {
    for (int v = 0; v < kUsed; ++v) sums[o][v] = add && o < outputs ? load(to + o * stride + v * kLanes) : zero();
  }
  for (int64_t d = 0; d < depth; ++d, panel += kUsed * kLanes) {
    Lanes rows[kUsed];
    for (int v = 0; v < kUsed; ++v) rows[v] = load(panel + v * kLanes);
    for (int o = 0; o < kThinOutputs; ++o) {
      const Lanes weight = each(weights[o][d]);
      for (int v = 0; v < kUsed; ++v) sums[o][v] = multiply_add(weight, rows[v], sums[o][v]);
    }
  }
  for (int o = 0; o < kThinOutputs; ++o) {
    if (o >= outputs) break;
    for (int v = 0; v < kUsed; ++v) store(to + o * stride + v * kLanes, sums[o][v]);
  }
}

template <typename Kind>
void widen(const typename Kind::Element* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) _mm256_storeu_ps(to + i, Kind::eight(from + i));
  for (; i < count; ++i) to[i] = Kind::one(from + i);
}

template <typename Kind>
void multiply_thin_kind(const float* panels, int64_t rows, int64_t depth, const FloatMatrix& weights, int64_t outputs,
                        float* to, int64_t stride) {
  constexpr bool kWidens = !std::is_same_v<Kind, Float32>;
  alignas(64) float wide[kWidens ? kThinOutputs * kThinDepth : 1];
  const auto* const data = static_cast<const typename Kind::Element*>(weights.data);
  for (int64_t d = 0; d < depth; d += kThinDepth) {
    const int64_t deep = std::min(kThinDepth, depth - d);
    for (int64_t first = 0; first < outputs; first += kThinOutputs) {
      const int64_t count = std::min<int64_t>(kThinOutputs, outputs - first);
      const float* lines[kThinOutputs];
      for (int o = 0; o < kThinOutputs; ++o) {
        // The last output again in place of those that are not there.
        const auto* const line = data + (first + std::min<int64_t>(o, count - 1)) * weights.row_stride + d;
        if constexpr (kWidens) {
          widen<Kind>(line, deep, wide + o * kThinDepth);
          lines[o] = wide + o * kThinDepth;
        } else {
          lines[o] = line;
        }
      }
      for (int64_t row = 0; row < rows; row += kThinRows) {
        const int64_t width = thin_width(rows - row);
        const float* const panel = panels + row * depth + d * width;
        float* const place = to + first * stride + row;
        if (width == kThinRows) {
          multiply_thin_panel<2>(panel, lines, deep, d > 0, count, place, stride);
        } else {
          multiply_thin_panel<1>(panel, lines, deep, d > 0, count, place, stride);
        }
      }
    }
  }
}

void multiply_thin(const float* panels, int64_t rows, int64_t depth, const FloatMatrix& weights, int64_t outputs,
                   float* to, int64_t stride) {
  switch (weights.kind) {
    case FloatKind::kFloat32:
      return multiply_thin_kind<Float32>(panels, rows, depth, weights, outputs, to, stride);
    case FloatKind::kBFloat16:
      return multiply_thin_kind<BFloat16>(panels, rows, depth, weights, outputs, to, stride);
    case FloatKind::kFloat16:
      return multiply_thin_kind<Float16>(panels, rows, depth, weights, outputs, to, stride);
  }
}

}  // namespace

const FloatProductBuild VOXTORCH_BUILD(float_product) = {kRows,    kColumns,  pack_rows, pack_columns,
                                                         multiply, kThinRows, pack_thin, multiply_thin};

}  // namespace voxtorch::kernels
#endif

// What the blocks of a float32 product are given: raw pointers only, as in rms_norm_residual/args.h.
#pragma once

#include <cstdint>

#include "core/kernels/builds.h"

namespace voxtorch::kernels {

enum class FloatKind { kFloat32, kBFloat16, kFloat16 };

// A matrix with any strides, in elements. Half floats become float32 when they are packed.
struct FloatMatrix {
  const void* data;
  int64_t row_stride;
  int64_t column_stride;
  FloatKind kind = FloatKind::kFloat32;
  FloatMatrix from(int64_t row, int64_t column) const {
    const int64_t size = kind == FloatKind::kFloat32 ? 4 : 2;
    const auto* const bytes = static_cast<const char*>(data);
    return {bytes + (row * row_stride + column * column_stride) * size, row_stride, column_stride, kind};
  }
};

// One build of the kernels. A panel holds `rows` rows of the left matrix, or `columns` columns of the right one, for a
// depth: element (r, d) at d * rows + r, and zeros where the matrix ends.
struct FloatProductBuild {
  int rows;
  int columns;
  // Copies rows [0, rows) and depths [0, depth) of a matrix into panels.
  void (*pack_rows)(const FloatMatrix& from, int64_t rows, int64_t depth, float* to);
  // The same with columns, of a matrix whose rows are the depth.
  void (*pack_columns)(const FloatMatrix& from, int64_t columns, int64_t depth, float* to);
  // Adds the product of panels to `to` [rows, columns], whose rows are `stride` apart, or writes it there.
  void (*multiply)(const float* left, const float* right, int64_t rows, int64_t columns, int64_t depth, bool add,
                   float* to, int64_t stride);

  // Of fewer rows than it pays to pack the other matrix for: only the rows are packed, in panels of `thin_rows`, the
  // last of them of half as many where it has no more. Those of `panels` times the rows of `weights` (whose columns
  // follow each other) -> `to` [outputs, rows], the product transposed, with `stride` numbers for an output.
  int thin_rows;
  void (*pack_thin)(const FloatMatrix& from, int64_t rows, int64_t depth, float* to);
  void (*multiply_thin)(const float* panels, int64_t rows, int64_t depth, const FloatMatrix& weights, int64_t outputs,
                        float* to, int64_t stride);
};

#if defined(__x86_64__)
extern const FloatProductBuild float_product_avx2;
extern const FloatProductBuild float_product_avx512;
#endif

}  // namespace voxtorch::kernels

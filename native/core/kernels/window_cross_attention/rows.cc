// The float32 and bfloat16 rows of window_cross_attention, compiled once for each instruction set (../builds.h).
#include "core/kernels/row_blocks.h"
#include "core/kernels/window_cross_attention/walk.h"

namespace voxtorch::kernels {
namespace {

template <typename Type>
struct VectorOps {
  using T = Type;
  using Acc = float;
  static float dot(const T* a, const T* b, int64_t dim) {
    return sum_of(
        dim, [&](int64_t at, int64_t count)
                 __attribute__((always_inline)) { return load(a + at, count) * load(b + at, count); });
  }
  static void add(float* sum, float factor, const T* row, int64_t dim) {
    each_block(
        dim, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
          store(sum + at, load(sum + at, count) + load(row + at, count) * factor, count);
        });
  }
  static void write(T* to, const float* sum, int64_t dim) {
    each_block(
        dim, [&](int64_t at, int64_t count)
                 __attribute__((always_inline)) { store(to + at, load(sum + at, count), count); });
  }
  static float exp(float value) { return __builtin_expf(value); }
  static float log(float value) { return __builtin_logf(value); }
};

}  // namespace

extern const WindowRows VOXTORCH_BUILD(window_rows) = {
    {window_forward<VectorOps<float>>, window_forward<VectorOps<BFloat16>>},
    {window_backward<VectorOps<float>>, window_backward<VectorOps<BFloat16>>},
};

}  // namespace voxtorch::kernels

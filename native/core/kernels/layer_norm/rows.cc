// The float32 and bfloat16 rows of layer_norm, compiled once for each instruction set (../builds.h).
#include "core/kernels/layer_norm/args.h"
#include "core/kernels/row_blocks.h"

namespace voxtorch::kernels {
namespace {

template <typename T>
VOXTORCH_INLINE void norm_rows(const LayerNormForward& args, int64_t begin, int64_t end) {
  const int64_t dim = args.dim;
  const T* weight = static_cast<const T*>(args.weight);
  const T* bias = static_cast<const T*>(args.bias);
  const float share = 1.0f / static_cast<float>(dim);
  for (int64_t row = begin; row < end; ++row) {
    const T* input = static_cast<const T*>(args.input) + row * dim;
    T* output = static_cast<T*>(args.output) + row * dim;
    const float mean =
        sum_of(
            dim, [&](int64_t at, int64_t count) __attribute__((always_inline)) { return load(input + at, count); }) *
        share;

    // Around the mean and not E[x²] - E[x]², which loses everything when the mean is large.
    Block means;
    VOXTORCH_EACH_PART means.part[k] = Floats{} + mean;
    const float squares = sum_of(
        dim, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
          const Block d = first(load(input + at, count) - means, count);
          return d * d;
        });
    const float rstd = 1.0f / __builtin_sqrtf(squares * share + static_cast<float>(args.eps));

    if (args.mean != nullptr) {
      args.mean[row] = mean;
      args.rstd[row] = rstd;
    }
    each_block(
        dim, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
          Block y = (load(input + at, count) - means) * rstd;
          if (weight) y = y * load(weight + at, count);
          if (bias) y = y + load(bias + at, count);
          store(output + at, y, count);
        });
  }
}

}  // namespace

void VOXTORCH_BUILD(layer_norm_rows)(const LayerNormForward& args, int64_t begin, int64_t end) {
  if (args.is_bfloat16)
    norm_rows<BFloat16>(args, begin, end);
  else
    norm_rows<float>(args, begin, end);
}

}  // namespace voxtorch::kernels

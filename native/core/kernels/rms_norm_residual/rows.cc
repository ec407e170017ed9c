// The float32 and bfloat16 rows of rms_norm_residual, compiled once for each instruction set (../builds.h).
#include "core/kernels/rms_norm_residual/args.h"
#include "core/kernels/row_blocks.h"

namespace voxtorch::kernels {
namespace {

template <typename T>
void forward_rows(const RmsNormForward& args, int64_t begin, int64_t end) {
  const int64_t dim = args.dim;
  const T* weight = static_cast<const T*>(args.weight);
  for (int64_t row = begin; row < end; ++row) {
    const T* input = static_cast<const T*>(args.input) + row * dim;
    const T* residual = args.residual ? static_cast<const T*>(args.residual) + row * dim : nullptr;
    T* hidden = static_cast<T*>(args.hidden) + row * dim;
    T* output = static_cast<T*>(args.output) + row * dim;

    Block squares = {};
    each_block(
        dim, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
          Block h = load(input + at, count);
          if (residual) h = h + load(residual + at, count);
          store(hidden + at, h, count);
          h = load(hidden + at, count);  // as rounded: the norm is that of what the next layer reads
          squares = squares + h * h;
        });
    const float scale = 1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(dim) + static_cast<float>(args.eps));
    each_block(
        dim, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
          Block y = load(hidden + at, count) * scale;
          if (weight) y = y * load(weight + at, count);
          store(output + at, y, count);
        });
  }
}

template <typename T>
void backward_rows(const RmsNormBackward& args, int64_t begin, int64_t end, float* weight_grad) {
  const int64_t dim = args.dim;
  const T* weight = static_cast<const T*>(args.weight);
  for (int64_t row = begin; row < end; ++row) {
    const T* grad = static_cast<const T*>(args.grad_output) + row * dim;
    const T* grad_hidden = args.grad_hidden_out ? static_cast<const T*>(args.grad_hidden_out) + row * dim : nullptr;
    const T* hidden = static_cast<const T*>(args.hidden) + row * dim;
    T* grad_input = static_cast<T*>(args.grad_input) + row * dim;

    Block squares = {};
    Block products = {};
    each_block(
        dim, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
          const Block h = load(hidden + at, count);
          Block g = load(grad + at, count);
          if (weight) g = g * load(weight + at, count);
          squares = squares + h * h;
          products = products + g * h;
        });
    const float scale = 1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(dim) + static_cast<float>(args.eps));
    const float pull = sum(products) / static_cast<float>(dim) * scale * scale;
    each_block(
        dim, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
          const Block h = load(hidden + at, count);
          Block g = load(grad + at, count);
          if (weight_grad) store(weight_grad + at, load(weight_grad + at, count) + g * (h * scale), count);
          if (weight) g = g * load(weight + at, count);
          g = (g - h * pull) * scale;
          if (grad_hidden) g = g + load(grad_hidden + at, count);
          store(grad_input + at, g, count);
        });
  }
}

}  // namespace

extern const RmsNormRows VOXTORCH_BUILD(rms_norm_rows) = {
    {forward_rows<float>, forward_rows<BFloat16>},
    {backward_rows<float>, backward_rows<BFloat16>},
};

}  // namespace voxtorch::kernels

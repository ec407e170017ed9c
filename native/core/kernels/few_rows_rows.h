// The outputs of few_rows_linear; the including file also defines VOXTORCH_ROWS (the function to define).
#include "core/kernels/few_rows_args.h"
#include "core/kernels/row_blocks.h"

namespace voxtorch::kernels {
namespace {

constexpr int kChains = 4;

// One output of `Rows` rows at once: the weights, which are what has to come from memory, are read once for all.
template <typename T, int Rows>
VOXTORCH_INLINE void dot(const float* input, const T* weight, int64_t in, float* sums) {
  Block chains[Rows][kChains] = {};
  int64_t at = 0;
  for (; at + kChains * kBlock <= in; at += kChains * kBlock) {
    for (int c = 0; c < kChains; ++c) {
      const Block w = load_block(weight + at + c * kBlock);
      for (int r = 0; r < Rows; ++r) {
        chains[r][c] = chains[r][c] + load_block(input + r * in + at + c * kBlock) * w;
      }
    }
  }
  for (; at < in; at += kBlock) {
    const int64_t count = in - at < kBlock ? in - at : kBlock;
    const Block w = load(weight + at, count);
    for (int r = 0; r < Rows; ++r) chains[r][0] = chains[r][0] + load(input + r * in + at, count) * w;
  }
  for (int r = 0; r < Rows; ++r) sums[r] = sum((chains[r][0] + chains[r][1]) + (chains[r][2] + chains[r][3]));
}

template <typename T>
VOXTORCH_INLINE void outputs(const FewRows& args, int64_t begin, int64_t end) {
  for (int64_t j = begin; j < end; ++j) {
    const T* weight = static_cast<const T*>(args.weight) + j * args.in;
    for (int64_t row = 0; row < args.rows;) {
      const float* input = args.input + row * args.in;
      float sums[2];
      const int64_t many = args.rows - row >= 2 ? 2 : 1;
      if (many == 2)
        dot<T, 2>(input, weight, args.in, sums);
      else
        dot<T, 1>(input, weight, args.in, sums);
      for (int64_t r = 0; r < many; ++r) {
        float value = args.scale ? sums[r] * args.scale[j] : sums[r];
        if (args.bias) value += args.bias[j];
        args.output[(row + r) * args.out + j] = value;
      }
      row += many;
    }
  }
}

}  // namespace

void VOXTORCH_ROWS(const FewRows& args, int64_t begin, int64_t end) {
  switch (args.type) {
    case FewRows::Weight::float32:
      return outputs<float>(args, begin, end);
    case FewRows::Weight::bfloat16:
      return outputs<BFloat16>(args, begin, end);
    case FewRows::Weight::int8:
      return outputs<int8_t>(args, begin, end);
  }
}

}  // namespace voxtorch::kernels

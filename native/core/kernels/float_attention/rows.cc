// The softmax between the two products of attention, compiled once for each instruction set (../builds.h).
#include "core/kernels/float_attention/args.h"
#include "core/kernels/row_blocks.h"

#if defined(__AVX2__)
namespace voxtorch::kernels {
namespace {

constexpr float kLowest = -__builtin_inff();

VOXTORCH_INLINE int64_t seen_by(const ScoreBlock& block, int64_t row) {
  const int64_t seen = block.is_causal ? block.seen + row : block.columns;
  return seen < 0 ? 0 : seen < block.columns ? seen : block.columns;
}

void add_mask(const ScoreBlock& block, int64_t row, int64_t seen) {
  float* const to = block.scores + row * block.stride;
  const float* const mask = block.mask + row * block.mask_row;
  if (block.mask_column == 1) {
    for (int64_t c = 0; c < seen; ++c) to[c] += mask[c];
  } else {
    for (int64_t c = 0; c < seen; ++c) to[c] += mask[c * block.mask_column];
  }
}

float largest_of(const float* from, int64_t count) {
  Block most = all(kLowest);
  int64_t at = 0;
  for (; at + kBlock <= count; at += kBlock) most = larger(most, load_block(from + at));
  float result = largest(most);
  for (; at < count; ++at) result = from[at] > result ? from[at] : result;
  return result;
}

// exp_of, with fused multiply-adds.
VOXTORCH_INLINE Floats power_of(Floats x) {
  constexpr float kRound = 12582912.0f;
  const auto each = [](float value) __attribute__((always_inline)) { return Floats{} + value; };
  const Floats shifted = multiply_add(x, each(1.44269504088896341f), each(kRound));
  const Floats n = shifted - kRound;
  const Floats r = multiply_add(n, each(2.12194440e-4f), multiply_add(n, each(-0.693359375f), x));
  Floats y = multiply_add(r, each(1.9875691500e-4f), each(1.3981999507e-3f));
  y = multiply_add(y, r, each(8.3334519073e-3f));
  y = multiply_add(y, r, each(4.1665795894e-2f));
  y = multiply_add(y, r, each(1.6666665459e-1f));
  y = multiply_add(y, r, each(5.0000001201e-1f));
  y = multiply_add(y, r * r, r) + 1.0f;
  const Words power = bits_of(y) + (bits_of(shifted) << 23);
  // Of NaN, the power is NaN too.
  return floats_of(power & ~reinterpret_cast<Words>(x < -87.0f));
}

VOXTORCH_INLINE Block power_of(Block x) {
  VOXTORCH_EACH_PART x.part[k] = power_of(x.part[k]);
  return x;
}

// e^(x - less) in place of each x, and zeros after those; returns their sum.
float powers(float* scores, int64_t count, int64_t columns, float less) {
  Block total = all(0);
  int64_t at = 0;
  for (; at + kBlock <= count; at += kBlock) {
    const Block power = power_of(load_block(scores + at) - all(less));
    store_block(scores + at, power);
    total = total + power;
  }
  if (at < count) {
    const Block power = first(power_of(load(scores + at, count - at) - all(less)), count - at);
    store(scores + at, power, count - at);
    total = total + power;
  }
  if (count < columns) std::memset(scores + count, 0, (columns - count) * sizeof(float));
  return sum(total);
}

}  // namespace

void VOXTORCH_BUILD(float_attention_step)(const SoftmaxStep& step) {
  const ScoreBlock& block = step.block;
  for (int64_t row = 0; row < block.rows; ++row) {
    float* const scores = block.scores + row * block.stride;
    const int64_t seen = seen_by(block, row);
    if (block.mask != nullptr) add_mask(block, row, seen);
    const float before = step.largest[row], here = largest_of(scores, seen);
    const float largest = here > before ? here : before;
    if (largest == kLowest) {
      // No key is seen yet. A score that is NaN makes the sum NaN.
      float unknown = 0;
      for (int64_t c = 0; c < seen; ++c) unknown += scores[c] == scores[c] ? 0 : scores[c];
      std::memset(scores, 0, block.columns * sizeof(float));
      step.sum[row] += unknown;
      continue;
    }
    const float total = powers(scores, seen, block.columns, largest);
    float* const output = step.output + row * step.width;
    if (before == largest) {
      step.sum[row] += total;
      continue;
    }
    // Before the first block that is seen, the output is 0.
    const float scale = before == kLowest ? 0 : power_of(Floats{} + (before - largest))[0];
    step.largest[row] = largest;
    step.sum[row] = step.sum[row] * scale + total;
    for (int64_t i = 0; i < step.width; ++i) output[i] *= scale;
  }
}

void VOXTORCH_BUILD(float_attention_gradient)(const SoftmaxGradient& at) {
  const ScoreBlock& block = at.block;
  for (int64_t row = 0; row < block.rows; ++row) {
    float* const scores = block.scores + row * block.stride;
    float* const grads = at.grads + row * block.stride;
    int64_t seen = seen_by(block, row);
    if (block.mask != nullptr) add_mask(block, row, seen);
    if (at.log_sum[row] == kLowest) seen = 0;
    powers(scores, seen, block.columns, at.log_sum[row]);
    const float delta = at.delta[row];
    for (int64_t c = 0; c < block.columns; ++c) grads[c] = scores[c] * (grads[c] - delta);
  }
}

}  // namespace voxtorch::kernels
#endif

// The parts of a decoding step other than products, compiled once for each instruction set (../builds.h).
#include "core/kernels/query_attention/args.h"
#include "core/kernels/row_blocks.h"

namespace voxtorch::kernels {
namespace {

#define VOXTORCH_BODY __attribute__((always_inline))

VOXTORCH_INLINE float largest(const float* x, int64_t count) {
  float most = x[0];
  int64_t at = 0;
  if (count >= kBlock) {
    Block block = load_block(x);
    for (at = kBlock; at + kBlock <= count; at += kBlock) block = larger(load_block(x + at), block);
    float lanes[kBlock];
    store_block(lanes, block);
    for (const float lane : lanes) most = lane > most ? lane : most;
  }
  for (; at < count; ++at) most = x[at] > most ? x[at] : most;
  return most;
}

// `Blocks`: of a head, 0 where it does not consist of whole ones.
template <typename T, int Blocks>
VOXTORCH_INLINE void attend(const QueryAttention& args) {
  const T* keys = static_cast<const T*>(args.keys);
  const T* values = static_cast<const T*>(args.values);
  constexpr int kMost = Blocks > 0 ? Blocks : static_cast<int>(kMostQueryDim / kBlock);
  const int blocks = Blocks > 0 ? Blocks : static_cast<int>((args.dim + kBlock - 1) / kBlock);
  const auto width = [&](int b) VOXTORCH_BODY {
    return Blocks > 0 || (b + 1) * kBlock <= args.dim ? kBlock : args.dim - b * kBlock;
  };
  Block query[kMost];
  for (int b = 0; b < blocks; ++b) query[b] = load(args.query + b * kBlock, width(b)) * args.scale;
  for (int64_t i = 0; i < args.count; ++i) {
    const T* key = keys + i * args.key_stride;
    Block score = query[0] * load(key, width(0));
    for (int b = 1; b < blocks; ++b) score = score + query[b] * load(key + b * kBlock, width(b));
    args.scores[i] = sum(score);
  }
  if (args.own_key) {
    Block score = query[0] * load(args.own_key, width(0));
    for (int b = 1; b < blocks; ++b) score = score + query[b] * load(args.own_key + b * kBlock, width(b));
    args.scores[args.count] = sum(score);
  }
  const int64_t scores = args.count + (args.own_key ? 1 : 0);
  const Block most = all(largest(args.scores, scores));
  const float total = sum_of(scores, [&](int64_t at, int64_t count) VOXTORCH_BODY {
    const Block share = first(exp_of(load(args.scores + at, count) - most), count);
    store(args.scores + at, share, count);
    return share;
  });
  // Two chains for each block: one would wait for each addition before the next.
  Block even[kMost] = {}, odd[kMost] = {};
  int64_t i = 0;
  for (; i + 2 <= args.count; i += 2) {
    const T* value = values + i * args.value_stride;
    for (int b = 0; b < blocks; ++b) {
      even[b] = even[b] + load(value + b * kBlock, width(b)) * args.scores[i];
      odd[b] = odd[b] + load(value + args.value_stride + b * kBlock, width(b)) * args.scores[i + 1];
    }
  }
  if (i < args.count) {
    for (int b = 0; b < blocks; ++b) {
      even[b] = even[b] + load(values + i * args.value_stride + b * kBlock, width(b)) * args.scores[i];
    }
  }
  if (args.own_value) {
    for (int b = 0; b < blocks; ++b) {
      odd[b] = odd[b] + load(args.own_value + b * kBlock, width(b)) * args.scores[args.count];
    }
  }
  const float share = 1.0f / total;
  for (int b = 0; b < blocks; ++b) store(args.output + b * kBlock, (even[b] + odd[b]) * share, width(b));
}

template <typename T>
VOXTORCH_INLINE void attend_any(const QueryAttention& args) {
  if (args.dim == 4 * kBlock)
    attend<T, 4>(args);
  else
    attend<T, 0>(args);
}

void attention(const QueryAttention& args) {
  if (args.type == FewRows::Weight::bfloat16)
    attend_any<BFloat16>(args);
  else if (args.type == FewRows::Weight::float16)
    attend_any<Float16>(args);
  else
    attend_any<float>(args);
}

// Abramowitz and Stegun 7.1.26: erf within 1.5e-7.
void gelu(float* x, int64_t count) {
  each_block(count, [&](int64_t at, int64_t width) VOXTORCH_BODY {
    const Block given = load(x + at, width);
    Block scaled = given * 0.70710678118654752f, t;
    VOXTORCH_EACH_PART {
      const Floats positive = scaled.part[k] < 0.0f ? -scaled.part[k] : scaled.part[k];
      scaled.part[k] = positive;
      t.part[k] = 1.0f / (positive * 0.3275911f + 1.0f);
    }
    Block minus_squares;
    VOXTORCH_EACH_PART minus_squares.part[k] = -(scaled.part[k] * scaled.part[k]);
    const Block tail = exp_of(minus_squares);
    Block result;
    VOXTORCH_EACH_PART {
      const Floats v = t.part[k];
      const Floats p =
          ((((v * 1.061405429f - 1.453152027f) * v + 1.421413741f) * v - 0.284496736f) * v + 0.254829592f) * v;
      const Floats erf = 1.0f - p * tail.part[k];
      result.part[k] = given.part[k] * 0.5f * (given.part[k] < 0.0f ? 1.0f - erf : 1.0f + erf);
    }
    store(x + at, result, width);
  });
}

}  // namespace

const StepKernels VOXTORCH_BUILD(step_kernels) = {attention, gelu};

}  // namespace voxtorch::kernels

// The float32 rows of gated_position_attention, compiled once for each instruction set (../builds.h).
#include "core/kernels/gated_position_attention/args.h"
#include "core/kernels/gated_position_attention/dropout.h"
#include "core/kernels/row_blocks.h"

namespace voxtorch::kernels {
namespace {

struct WordBlock {
  Words part[kParts];
};

VOXTORCH_INLINE WordBlock load_words(const uint32_t* from) {
  WordBlock block;
  std::memcpy(&block, from, sizeof(block));
  return block;
}

// value where the mask's bits are one, `otherwise` where they are zero, whatever value is there.
VOXTORCH_INLINE Block select(const WordBlock& mask, const Block& value, float otherwise) {
  Block chosen;
  const Words rest = bits_of(Floats{} + otherwise);
  VOXTORCH_EACH_PART chosen.part[k] = floats_of((bits_of(value.part[k]) & mask.part[k]) | (rest & ~mask.part[k]));
  return chosen;
}

// What the relative biases at `at` are: zero for the keys that have none.
VOXTORCH_INLINE Block biased_only(const AttentionBlock<float>& args, int64_t at, const Block& block) {
  if (at >= args.free_keys) return block;
  float lanes[kBlock];
  store_block(lanes, block);
  for (int64_t i = 0; i < kBlock && at + i < args.free_keys; ++i) lanes[i] = 0;
  return load_block(lanes);
}

// The keys [64 g, 64 g + 64) of query `row`: all ones where the probability is kept.
void kept_keys(const AttentionDropout& dropout, uint32_t head, uint32_t row, uint32_t group, uint32_t (&kept)[64]) {
  uint32_t a[kBlock], b[kBlock], c[kBlock], d[kBlock];
  for (int i = 0; i < kBlock; ++i) {
    a[i] = group * kBlock + i;
    b[i] = row;
    c[i] = head;
    d[i] = 0;
  }
  uint32_t key_low = static_cast<uint32_t>(dropout.seed);
  uint32_t key_high = static_cast<uint32_t>(dropout.seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    for (int i = 0; i < kBlock; ++i) {
      const uint64_t first = static_cast<uint64_t>(kPhiloxFirst) * a[i];
      const uint64_t second = static_cast<uint64_t>(kPhiloxSecond) * c[i];
      a[i] = static_cast<uint32_t>(second >> 32) ^ b[i] ^ key_low;
      b[i] = static_cast<uint32_t>(second);
      c[i] = static_cast<uint32_t>(first >> 32) ^ d[i] ^ key_high;
      d[i] = static_cast<uint32_t>(first);
    }
    key_low += kPhiloxLow;
    key_high += kPhiloxHigh;
  }
  for (int i = 0; i < kBlock; ++i) {
    kept[i] = a[i] >= dropout.threshold ? ~0u : 0u;
    kept[i + 16] = b[i] >= dropout.threshold ? ~0u : 0u;
    kept[i + 32] = c[i] >= dropout.threshold ? ~0u : 0u;
    kept[i + 48] = d[i] >= dropout.threshold ? ~0u : 0u;
  }
}

// Calls body(at, kept) for each 16 columns.
template <typename Body>
VOXTORCH_INLINE void each_kept(const AttentionBlock<float>& args, int64_t row, Body body) {
  uint32_t kept[64];
  for (int64_t at = 0; at < args.stride; at += kBlock) {
    if (at % 64 == 0)
      kept_keys(args.dropout, args.head, static_cast<uint32_t>(row), static_cast<uint32_t>(at / 64), kept);
    body(at, load_words(kept + at % 64));
  }
}

void forward_rows(const AttentionBlock<float>& args, float* scores, float* logsumexp) {
  const float infinity = __builtin_inff();
  for (int64_t r = 0; r < args.rows; ++r) {
    float* row = scores + r * args.stride;
    const float* relative = args.relative + (args.time - 1 - (args.row + r));
    const float gate = args.gate[r];
    Block best = all(-infinity);
    for (int64_t at = 0; at < args.stride; at += kBlock) {
      const Block biased = load_block(row + at) + biased_only(args, at, load_block(relative + at)) * gate;
      const Block score = select(load_words(args.attend + at), biased, -infinity);
      store_block(row + at, score);
      best = larger(best, score);
    }
    const float top = largest(best);
    const Block shift = all(top == -infinity ? 0.0f : top);
    Block total = {};
    for (int64_t at = 0; at < args.stride; at += kBlock) {
      const Block power = exp_of(load_block(row + at) - shift);
      store_block(row + at, power);
      total = total + power;
    }
    const float weight = sum(total);
    logsumexp[r] = weight == 0 ? infinity : top + __builtin_logf(weight);
    const float share = weight == 0 ? 0.0f : 1.0f / weight;
    if (args.dropout.threshold == 0) {
      for (int64_t at = 0; at < args.stride; at += kBlock) store_block(row + at, load_block(row + at) * share);
    } else {
      const float scale = static_cast<float>(args.dropout.scale);
      each_kept(
          args, args.row + r, [&](int64_t at, const WordBlock& kept) __attribute__((always_inline)) {
            store_block(row + at, select(kept, load_block(row + at) * share * scale, 0));
          });
    }
  }
}

void backward_rows(const AttentionBlock<float>& args, float* scores, float* grads, const float* logsumexp,
                   float* grad_gate, float* grad_relative, float* spare) {
  for (int64_t r = 0; r < args.rows; ++r) {
    float* row = scores + r * args.stride;
    float* grad = grads + r * args.stride;
    const int64_t shift = args.time - 1 - (args.row + r);
    const float* relative = args.relative + shift;
    float* to_relative = grad_relative + shift;
    const float gate = args.gate[r];
    const Block level = all(logsumexp[r]);
    const auto probability = [&](int64_t at, const WordBlock& attend) __attribute__((always_inline)) {
      return select(attend,
                    exp_of(load_block(row + at) + biased_only(args, at, load_block(relative + at)) * gate - level), 0);
    };

    Block total = {};
    Block products = {};
    const float* probabilities = row;
    if (args.dropout.threshold == 0) {
      for (int64_t at = 0; at < args.stride; at += kBlock) {
        const WordBlock attend = load_words(args.attend + at);
        const Block p = probability(at, attend);
        const Block g = select(attend, load_block(grad + at), 0);
        store_block(row + at, p);
        store_block(grad + at, g);
        total = total + p;
        products = products + p * g;
      }
    } else {
      probabilities = spare;
      const float scale = static_cast<float>(args.dropout.scale);
      each_kept(
          args, args.row + r, [&](int64_t at, const WordBlock& kept) __attribute__((always_inline)) {
            const WordBlock attend = load_words(args.attend + at);
            const Block p = probability(at, attend);
            const Block g = select(kept, select(attend, load_block(grad + at), 0) * scale, 0);
            store_block(spare + at, p);
            store_block(row + at, select(kept, p * scale, 0));
            store_block(grad + at, g);
            total = total + p;
            products = products + p * g;
          });
    }

    // logsumexp is rounded, so all probabilities of a row are off by one factor. Without it here, the gradient is off
    // by no more than that factor.
    const float weight = sum(total);
    const Block mean = all(weight == 0 ? 0.0f : sum(products) / weight);
    Block to_gate = {};
    for (int64_t at = 0; at < args.stride; at += kBlock) {
      const Block g = load_block(probabilities + at) * (load_block(grad + at) - mean);
      store_block(grad + at, g);
      const Block bias_grad = biased_only(args, at, g);
      to_gate = to_gate + bias_grad * load_block(relative + at);
      store_block(to_relative + at, load_block(to_relative + at) + bias_grad * gate);
    }
    grad_gate[r] = sum(to_gate);
  }
}

}  // namespace

extern const AttentionRows VOXTORCH_BUILD(attention_rows) = {forward_rows, backward_rows};

}  // namespace voxtorch::kernels

// The rows of a decoding step, compiled once for each instruction set (../builds.h).
#include "core/kernels/decode_step/args.h"
#include "core/kernels/row_blocks.h"
//
#include "core/kernels/decode_step/dense.h"
#include "core/kernels/decode_step/rounding.h"

namespace voxtorch::kernels {
namespace {

// x / (1 + exp(-scale * x - cubic * x³))
VOXTORCH_INLINE Block times_sigmoid(Block x, float scale, float cubic = 0) {
  VOXTORCH_EACH_PART {
    const Floats v = x.part[k];
    x.part[k] = v / (1.0f + exp_of(-(v * (v * v * cubic + scale))));
  }
  return x;
}

template <typename Function>
VOXTORCH_INLINE Block each_lane(const Block& x, Function function) {
  float lanes[kBlock];
  store_block(lanes, x);
  for (float& lane : lanes) lane = function(lane);
  return load_block(lanes);
}

VOXTORCH_INLINE Block activated(const Block& x, JoinedFunction function) {
  switch (function) {
    case JoinedFunction::kNone:
      return x;
    case JoinedFunction::kSilu:
      return times_sigmoid(x, 1);
    case JoinedFunction::kGeluTanh:  // (1 + tanh(u)) / 2 is the sigmoid of 2u
      return times_sigmoid(x, 1.5957691216057308f, 1.5957691216057308f * 0.044715f);
    case JoinedFunction::kQuickGelu:
      return times_sigmoid(x, 1.702f);
    case JoinedFunction::kRelu: {
      Block y = x;
      VOXTORCH_EACH_PART y.part[k] = x.part[k] < 0.0f ? Floats{} : x.part[k];
      return y;
    }
    case JoinedFunction::kGelu:
      return each_lane(x, [](float v) { return 0.5f * v * (1.0f + __builtin_erff(v * 0.70710678118654752f)); });
    case JoinedFunction::kTanh:
      return each_lane(x, [](float v) { return __builtin_tanhf(v); });
    case JoinedFunction::kMish:
      return each_lane(x,
                       [](float v) { return v * __builtin_tanhf(v > 20 ? v : __builtin_log1pf(__builtin_expf(v))); });
  }
  return x;
}

void gate(JoinedFunction function, float* values, const float* factors, int64_t count) {
  each_block(
      count, [&](int64_t at, int64_t n) __attribute__((always_inline)) {
        store(values + at, activated(load(values + at, n), function) * load(factors + at, n), n);
      });
}

template <typename T>
void widen(const void* from, float* to, int64_t count) {
  each_block(
      count, [&](int64_t at, int64_t n)
                 __attribute__((always_inline)) { store(to + at, load(static_cast<const T*>(from) + at, n), n); });
}

void norm(const StepNorm& args) {
  const float squares = sum_of(
      args.dim, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
        const Block x = load(args.input + at, count);
        return x * x;
      });
  const float scale = 1.0f / __builtin_sqrtf(squares / static_cast<float>(args.dim) + static_cast<float>(args.eps));
  each_block(
      args.dim, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
        const Block y = load(args.input + at, count) * scale * load(args.weight + at, count);
        store(args.output + at, y, count);
      });
}

VOXTORCH_INLINE float dot(const float* a, const float* b, int64_t count) {
  return sum_of(
      count, [&](int64_t at, int64_t n) __attribute__((always_inline)) { return load(a + at, n) * load(b + at, n); });
}

void add_product(const float* weight, const float* input, int64_t in, float scale, float* output, int64_t count) {
  for (int64_t i = 0; i < count; ++i) output[i] += scale * dot(weight + i * in, input, in);
}

// The first 2 * half dimensions by halves, all times `factor`.
template <typename T>
VOXTORCH_INLINE void turn(const float* x, const float* cos, const float* sin, int64_t half, int64_t dim, float factor,
                          T* to) {
  each_block(
      half, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
        const Block a = load(x + at, count), b = load(x + half + at, count);
        const Block c = load(cos + at, count), s = load(sin + at, count);
        store(to + at, (a * c - b * s) * factor, count);
        store(to + half + at, (b * c + a * s) * factor, count);
      });
  each_block(
      dim - 2 * half, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
        store(to + 2 * half + at, load(x + 2 * half + at, count) * factor, count);
      });
}

VOXTORCH_INLINE float largest(const float* values, int64_t count) {
  float best = values[0];
  for (int64_t i = 1; i < count; ++i) best = values[i] > best ? values[i] : best;
  return best;
}

template <typename T>
void attend(const StepAttention& args) {
  const int64_t dim = args.dim, half = args.rotated / 2;
  int64_t places[kStepPlaces], count = 0;
  for (int64_t place = args.begin; place < args.end; ++place) {
    if (args.mask == nullptr || args.mask[place]) places[count++] = place;
  }
  for (int64_t h = 0; h < args.group; ++h) {
    turn(args.query + h * dim, args.cos, args.sin, half, dim, args.scale, args.turned + h * dim);
  }
  const T *keys = static_cast<const T*>(args.keys), *values = static_cast<const T*>(args.values);
  T *own_key = static_cast<T*>(args.own_key), *own_value = static_cast<T*>(args.own_value);
  if (args.key != nullptr) {
    turn(args.key, args.cos, args.sin, half, dim, 1, own_key);
    each_block(
        dim, [&](int64_t at, int64_t n)
                 __attribute__((always_inline)) { store(own_value + at, load(args.value + at, n), n); });
  }
  const int64_t own = args.key != nullptr ? 1 : 0, all = count + own;
  const auto key_at = [&](int64_t i) __attribute__((always_inline)) {
    return i < count ? keys + places[i] * dim : own_key;
  };
  const auto value_at = [&](int64_t i) __attribute__((always_inline)) {
    return i < count ? values + places[i] * dim : own_value;
  };
  for (int64_t h = 0; h < args.group; ++h) {
    float* output = args.output + h * (dim + 2);
    if (all == 0) {
      for (int64_t i = 0; i < dim + 2; ++i) output[i] = 0;
      output[dim] = -__builtin_inff();
      continue;
    }
    const float* query = args.turned + h * dim;
    float weights[kStepPlaces + 2 * kBlock];
    for (int64_t first = 0; first < all; first += kBlock) {
      Block scores[kBlock];
      for (int64_t i = 0; i < kBlock; ++i) {
        const T* key = key_at(first + i < all ? first + i : all - 1);
        Block chain = {};
        each_block(
            dim, [&](int64_t at, int64_t n)
                     __attribute__((always_inline)) { chain = chain + load(query + at, n) * load(key + at, n); });
        scores[i] = chain;
      }
      const auto sums = sums_of(scores);
      std::memcpy(weights + first, &sums, sizeof(sums));
    }
    if (args.cap > 0) {
      for (int64_t i = 0; i < all; ++i) weights[i] = args.cap * __builtin_tanhf(weights[i] / args.cap);
    }
    const float most = largest(weights, all);
    Block total = {};
    for (int64_t at = 0; at < all; at += kBlock) {
      Block w = load_block(weights + at);
      VOXTORCH_EACH_PART w.part[k] = w.part[k] - most;
      const int64_t n = all - at < kBlock ? all - at : kBlock;
      w = first(exp_of(w), n);
      store_block(weights + at, w);
      total = total + w;
    }
    int64_t at = 0;
    for (; at + 4 * kBlock <= dim; at += 4 * kBlock) {
      Block a = {}, b = {}, c = {}, d = {};
      for (int64_t i = 0; i < all; ++i) {
        const T* value = value_at(i) + at;
        const float w = weights[i];
        a = a + load_block(value) * w;
        b = b + load_block(value + kBlock) * w;
        c = c + load_block(value + 2 * kBlock) * w;
        d = d + load_block(value + 3 * kBlock) * w;
      }
      store_block(output + at, a);
      store_block(output + at + kBlock, b);
      store_block(output + at + 2 * kBlock, c);
      store_block(output + at + 3 * kBlock, d);
    }
    for (; at < dim; at += kBlock) {
      const int64_t n = dim - at < kBlock ? dim - at : kBlock;
      Block a = {};
      for (int64_t i = 0; i < all; ++i) a = a + load(value_at(i) + at, n) * weights[i];
      store(output + at, a, n);
    }
    output[dim] = most;
    output[dim + 1] = sum(total);
  }
}

void join(const StepPieces& args) {
  const int64_t dim = args.dim;
  float most = -__builtin_inff();
  for (int64_t i = 0; i < args.count; ++i) {
    const float here = args.pieces[i * args.stride + dim];
    most = here > most ? here : most;
  }
  float total = 0;
  for (int64_t at = 0; at < dim; ++at) args.output[at] = 0;
  for (int64_t i = 0; i < args.count; ++i) {
    const float* piece = args.pieces + i * args.stride;
    const float factor = args.count == 1 ? 1 : __builtin_expf(piece[dim] - most);
    total += piece[dim + 1] * factor;
    each_block(
        dim, [&](int64_t at, int64_t n) __attribute__((always_inline)) {
          store(args.output + at, load(args.output + at, n) + load(piece + at, n) * factor, n);
        });
  }
  const float inverse = 1.0f / total;
  each_block(
      dim, [&](int64_t at, int64_t n)
               __attribute__((always_inline)) { store(args.output + at, load(args.output + at, n) * inverse, n); });
}

}  // namespace

extern const StepRows VOXTORCH_BUILD(step_rows) = {
    norm,
    {attend<float>, attend<BFloat16>, attend<Float16>},
    {widen<float>, widen<BFloat16>, widen<Float16>},
    join,
    gate,
    add_product,
    {dense<float>, dense<BFloat16>, dense<Float16>},
    pair_up,
    {round<float>, round<BFloat16>, round<Float16>},
    floor,
    reaching,
};

}  // namespace voxtorch::kernels

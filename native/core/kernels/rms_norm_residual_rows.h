// The float32 and bfloat16 rows of rms_norm_residual, written once in GCC/Clang vector extensions and compiled once per
// instruction set: the including file defines VOXTORCH_LANES (floats in a register) and VOXTORCH_ROWS (the table to
// fill). Everything is internal to that file. Sums run over 16 lanes whatever the register holds, so that every build
// gives the same bits.

#include <cstdint>
#include <cstring>

#include "core/kernels/rms_norm_residual_args.h"

namespace voxtorch::kernels {
namespace {

constexpr int kLanes = VOXTORCH_LANES;
constexpr int kBlock = 16;
constexpr int kParts = kBlock / kLanes;

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));

struct BFloat16 {
  uint16_t bits;
};

struct Block {
  Floats part[kParts];
};

#define VOXTORCH_INLINE inline __attribute__((always_inline))
#define VOXTORCH_EACH_PART for (int k = 0; k < kParts; ++k)

VOXTORCH_INLINE Block operator+(Block a, const Block& b) {
  VOXTORCH_EACH_PART a.part[k] += b.part[k];
  return a;
}
VOXTORCH_INLINE Block operator-(Block a, const Block& b) {
  VOXTORCH_EACH_PART a.part[k] -= b.part[k];
  return a;
}
VOXTORCH_INLINE Block operator*(Block a, const Block& b) {
  VOXTORCH_EACH_PART a.part[k] *= b.part[k];
  return a;
}
VOXTORCH_INLINE Block operator*(Block a, float b) {
  VOXTORCH_EACH_PART a.part[k] *= b;
  return a;
}

VOXTORCH_INLINE float sum(const Block& block) {
  float lanes[kBlock];
  std::memcpy(lanes, &block, sizeof(lanes));
  for (int width = kBlock / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

VOXTORCH_INLINE Block load_block(const float* from) {
  Block block;
  std::memcpy(&block, from, sizeof(block));
  return block;
}
VOXTORCH_INLINE void store_block(float* to, const Block& block) { std::memcpy(to, &block, sizeof(block)); }

VOXTORCH_INLINE Block load_block(const BFloat16* from) {
  Block block;
  VOXTORCH_EACH_PART {
    Halves halves;
    std::memcpy(&halves, from + k * kLanes, sizeof(halves));
    const Words words = __builtin_convertvector(halves, Words) << 16;
    std::memcpy(&block.part[k], &words, sizeof(words));
  }
  return block;
}

// Round to nearest, ties to even; every NaN becomes the quiet one.
VOXTORCH_INLINE Halves round_to_bfloat16(Floats value) {
  Words words;
  std::memcpy(&words, &value, sizeof(words));
  const Words rounded = (words + 0x7fffu + ((words >> 16) & 1u)) >> 16;
  const Words is_nan = reinterpret_cast<Words>(value != value);
  return __builtin_convertvector((rounded & ~is_nan) | (0x7fc0u & is_nan), Halves);
}
VOXTORCH_INLINE void store_block(BFloat16* to, const Block& block) {
  VOXTORCH_EACH_PART {
    const Halves halves = round_to_bfloat16(block.part[k]);
    std::memcpy(to + k * kLanes, &halves, sizeof(halves));
  }
}

// `count` is kBlock but for the last block of a row; missing lanes are zero.
template <typename T>
VOXTORCH_INLINE Block load(const T* from, int64_t count) {
  if (count == kBlock) return load_block(from);
  T lanes[kBlock] = {};
  std::memcpy(lanes, from, count * sizeof(T));
  return load_block(lanes);
}
template <typename T>
VOXTORCH_INLINE void store(T* to, const Block& block, int64_t count) {
  if (count == kBlock) return store_block(to, block);
  T lanes[kBlock];
  store_block(lanes, block);
  std::memcpy(to, lanes, count * sizeof(T));
}

template <typename Body>
VOXTORCH_INLINE void each_block(int64_t dim, Body body) {
  int64_t at = 0;
  for (; at + kBlock <= dim; at += kBlock) body(at, kBlock);
  if (at < dim) body(at, dim - at);
}

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

extern const RmsNormRows VOXTORCH_ROWS = {
    {forward_rows<float>, forward_rows<BFloat16>},
    {backward_rows<float>, backward_rows<BFloat16>},
};

}  // namespace voxtorch::kernels

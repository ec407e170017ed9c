// The outputs of few_rows_linear, compiled once for each instruction set (../builds.h).
#include "core/kernels/few_rows/args.h"
#include "core/kernels/row_blocks.h"
//
#include "core/kernels/few_rows/integer_rows.h"

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
struct Dense {
  template <int Rows>
  static VOXTORCH_INLINE void dot(const FewRows& args, const float* input, int64_t j, float* sums) {
    kernels::dot<T, Rows>(input, static_cast<const T*>(args.weight) + j * args.in, args.in, sums);
  }
};

// The values of the codes at `place` (0 to 3) of 16 words; `table` has one for each code.
VOXTORCH_INLINE Block look_up(const float* table, const uint8_t* words, int place) {
#if defined(__AVX2__)
  const Block entries = load_block(table);
#endif
  Block values;
  VOXTORCH_EACH_PART {
    const uint8_t* from = words + 2 * k * kLanes;
#if defined(__AVX2__)
    Halves halves;
    std::memcpy(&halves, from, sizeof(halves));
    // The earlier code of a byte is in its upper bits. Permutations look at an index's lowest bits only.
    const Words codes = __builtin_convertvector(halves, Words) >> (place / 2 * 8 + (place % 2 == 0 ? 4 : 0));
#endif
#if defined(__AVX512F__)
    values.part[k] = reinterpret_cast<Floats>(
        _mm512_permutexvar_ps(reinterpret_cast<__m512i>(codes), reinterpret_cast<__m512>(entries.part[0])));
#elif defined(__AVX2__)
    const auto index = reinterpret_cast<__m256i>(codes);
    const __m256 lower = _mm256_permutevar8x32_ps(reinterpret_cast<__m256>(entries.part[0]), index);
    const __m256 upper = _mm256_permutevar8x32_ps(reinterpret_cast<__m256>(entries.part[1]), index);
    const auto fourth_bit = reinterpret_cast<__m256>(codes << 28);
    values.part[k] = reinterpret_cast<Floats>(_mm256_blendv_ps(lower, upper, fourth_bit));
#else
    static_assert(kLanes == 4);
    const auto value = [&](int lane) { return table[from[2 * lane + place / 2] >> (place % 2 == 0 ? 4 : 0) & 15]; };
    values.part[k] = Floats{value(0), value(1), value(2), value(3)};
#endif
  }
  return values;
}

struct Nf4 {
  template <int Rows>
  static VOXTORCH_INLINE void dot(const FewRows& args, const float* input, int64_t j, float* sums) {
    static_assert(kChains * kBlock == kNf4Group && kBlock == kNf4Lanes);
    const auto* codes = static_cast<const uint8_t*>(args.weight) + j * args.in / 2;
    const Block values = load_block(args.values);
    Block chains[Rows][kChains] = {};
    int64_t block = j * args.in / args.block, rest = args.block - j * args.in % args.block;
    for (int64_t at = 0; at < args.in;) {
      float table[kBlock];
      store_block(table, values * args.scale[block]);
      const int64_t end = args.in - at < rest ? args.in : at + rest;
      for (; at < end; at += kNf4Group) {
        for (int c = 0; c < kChains; ++c) {
          const Block w = look_up(table, codes + at / 2, c);
          for (int r = 0; r < Rows; ++r) {
            chains[r][c] = chains[r][c] + load_block(input + r * args.in + at + c * kBlock) * w;
          }
        }
      }
      ++block;
      rest = args.block;
    }
    for (int r = 0; r < Rows; ++r) sums[r] = sum((chains[r][0] + chains[r][1]) + (chains[r][2] + chains[r][3]));
  }
};

template <typename Weight>
VOXTORCH_INLINE void outputs(const FewRows& args, int64_t begin, int64_t end) {
  for (int64_t j = begin; j < end; ++j) {
    for (int64_t row = 0; row < args.rows;) {
      const float* input = static_cast<const float*>(args.input) + row * args.in;
      float sums[2];
      const int64_t many = args.rows - row >= 2 ? 2 : 1;
      if (many == 2)
        Weight::template dot<2>(args, input, j, sums);
      else
        Weight::template dot<1>(args, input, j, sums);
      for (int64_t r = 0; r < many; ++r) {
        args.output[(row + r) * args.out + j] = args.bias ? sums[r] + args.bias[j] : sums[r];
      }
      row += many;
    }
  }
}

}  // namespace

void VOXTORCH_BUILD(few_rows)(const FewRows& args, int64_t begin, int64_t end) {
  switch (args.type) {
    case FewRows::Weight::float32:
      return outputs<Dense<float>>(args, begin, end);
    case FewRows::Weight::bfloat16:
      return outputs<Dense<BFloat16>>(args, begin, end);
    case FewRows::Weight::float16:
      return outputs<Dense<Float16>>(args, begin, end);
    case FewRows::Weight::int8:
      return integer_outputs<RowInt8>(args, begin, end);
    case FewRows::Weight::nf4:
      return outputs<Nf4>(args, begin, end);
    case FewRows::Weight::q8_0:
      return integer_outputs<Q8_0>(args, begin, end);
    case FewRows::Weight::q4_0:
      return integer_outputs<Q4_0>(args, begin, end);
    case FewRows::Weight::q4_1:
      return integer_outputs<Q4_1>(args, begin, end);
    case FewRows::Weight::q4_k:
      return integer_outputs<Q4_K>(args, begin, end);
    case FewRows::Weight::q6_k:
      return integer_outputs<Q6_K>(args, begin, end);
  }
}

void VOXTORCH_BUILD(few_rows_prepare)(const float* input, int64_t rows, int64_t in, void* to) {
  prepare_rows(input, rows, in, to);
}

}  // namespace voxtorch::kernels

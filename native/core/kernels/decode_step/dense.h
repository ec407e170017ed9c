// Products with weights of float32, bfloat16 and float16 for rows.h: all rows at once as far as registers go, so that a
// weight comes from memory once, and is widened once.

namespace voxtorch::kernels {
namespace {

#if defined(__AVX512F__)
// The 16 sums of 16 blocks, each in the order that sum() has.
VOXTORCH_INLINE Floats sums_of(const Block* blocks) {
  Floats eight[8], four[4], two[2];
  for (int i = 0; i < 8; ++i) {
    const __m512 a = reinterpret_cast<__m512>(blocks[2 * i].part[0]);
    const __m512 b = reinterpret_cast<__m512>(blocks[2 * i + 1].part[0]);
    eight[i] = reinterpret_cast<Floats>(_mm512_shuffle_f32x4(a, b, 0x44)) +
               reinterpret_cast<Floats>(_mm512_shuffle_f32x4(a, b, 0xee));
  }
  for (int i = 0; i < 4; ++i) {
    const __m512 a = reinterpret_cast<__m512>(eight[2 * i]), b = reinterpret_cast<__m512>(eight[2 * i + 1]);
    four[i] = reinterpret_cast<Floats>(_mm512_shuffle_f32x4(a, b, 0x88)) +
              reinterpret_cast<Floats>(_mm512_shuffle_f32x4(a, b, 0xdd));
  }
  // Groups of four lanes are those of the blocks 0, 1, 2, 3 and so on.
  for (int i = 0; i < 2; ++i) {
    const __m512 a = reinterpret_cast<__m512>(four[2 * i]), b = reinterpret_cast<__m512>(four[2 * i + 1]);
    two[i] = reinterpret_cast<Floats>(_mm512_shuffle_ps(a, b, 0x44)) +
             reinterpret_cast<Floats>(_mm512_shuffle_ps(a, b, 0xee));
  }
  const __m512 a = reinterpret_cast<__m512>(two[0]), b = reinterpret_cast<__m512>(two[1]);
  const __m512 all = reinterpret_cast<__m512>(reinterpret_cast<Floats>(_mm512_shuffle_ps(a, b, 0x88)) +
                                              reinterpret_cast<Floats>(_mm512_shuffle_ps(a, b, 0xdd)));
  // Lane 4 * i + j is the sum of block 4 * j + i.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return reinterpret_cast<Floats>(_mm512_permutexvar_ps(order, all));
}
#else
VOXTORCH_INLINE Block sums_of(const Block* blocks) {
  float sums[kBlock];
  for (int i = 0; i < kBlock; ++i) sums[i] = sum(blocks[i]);
  return load_block(sums);
}
#endif

// As many are summed one by one.
constexpr int kFewSums = kLanes == 16 ? 3 : kBlock;

// Bytes ahead of what is read: the processor's own look-ahead ends with a page of memory.
constexpr int64_t kAhead = 2048;

// Weights are taken kTogether blocks at once, of which this is part k.
template <typename T>
constexpr int kTogether = 1;
template <>
constexpr int kTogether<BFloat16> = 2;

VOXTORCH_INLINE void part_of(const float* from, int k, Floats* values) { values[0] = load_part(from + k * kLanes); }
VOXTORCH_INLINE void part_of(const Float16* from, int k, Floats* values) {
  Halves halves;
  std::memcpy(&halves, from + k * kLanes, sizeof(halves));
  values[0] = floats_of_halves(halves);
}
// Of bfloat16 two to a word: the lower ones of 32 are a block, and the upper ones another.
VOXTORCH_INLINE void part_of(const BFloat16* from, int k, Floats* values) {
  Words words;
  std::memcpy(&words, from + 2 * k * kLanes, sizeof(words));
  values[0] = reinterpret_cast<Floats>(words << 16);
  values[1] = reinterpret_cast<Floats>(words & 0xffff0000u);
}

// Adds `Blocks` blocks of the products of `Rows` rows with `Outs` outputs, from their element 0 on.
template <typename T, int Rows, int Outs, int Chains, int Blocks>
VOXTORCH_INLINE void add_blocks(const float* input, const T* weight, int64_t in, Block (&sums)[Outs][Rows][Chains]) {
  for (int c = 0; c < Blocks; c += kTogether<T>) {
    VOXTORCH_EACH_PART {
      Floats w[Outs][kTogether<T>];
      for (int o = 0; o < Outs; ++o) part_of(weight + o * in + c * kBlock, k, w[o]);
      for (int i = 0; i < kTogether<T>; ++i) {
        for (int r = 0; r < Rows; ++r) {
          Floats x = load_part(input + r * in + (c + i) * kBlock + k * kLanes);
#if defined(__AVX512F__)
          // Loaded once for all outputs: GCC would make it a part of each multiplication.
          if (Outs > 1) VOXTORCH_IN_REGISTER(x);
#endif
          for (int o = 0; o < Outs; ++o) {
            Floats& sum = sums[o][r][(c + i) % Chains].part[k];
            sum = multiply_add(x, w[o][i], sum);
          }
        }
      }
    }
  }
}

// `Rows` rows from `row`, `Outs` outputs from `j`, `Blocks` blocks at once. Sums run in `Chains` chains each, so that
// additions need not wait for each other.
template <typename T, int Rows, int Outs, int Chains, int Blocks>
VOXTORCH_INLINE void dense_tile(const FewRows& args, int64_t row, int64_t j) {
  constexpr int64_t kStep = Blocks * kBlock, kShort = kTogether<T> * kBlock;
  const int64_t in = args.in, ahead = Outs == 1 ? kAhead : Outs * in * static_cast<int64_t>(sizeof(T));
  const float* input = static_cast<const float*>(args.input) + row * in;
  const T* weight = static_cast<const T*>(args.weight) + j * in;
  Block sums[Outs][Rows][Chains] = {};
  int64_t at = 0;
  for (; at + kStep <= in; at += kStep) {
    for (int o = 0; o < Outs; ++o) {
      for (int64_t line = 0; line < kStep * static_cast<int64_t>(sizeof(T)); line += 64) {
        __builtin_prefetch(reinterpret_cast<const char*>(weight + o * in + at) + ahead + line);
      }
    }
    add_blocks<T, Rows, Outs, Chains, Blocks>(input + at, weight + at, in, sums);
  }
  for (; at + kShort <= in; at += kShort) {
    add_blocks<T, Rows, Outs, Chains, kTogether<T>>(input + at, weight + at, in, sums);
  }
  for (; at < in; at += kBlock) {
    const int64_t count = in - at < kBlock ? in - at : kBlock;
    for (int o = 0; o < Outs; ++o) {
      const Block w = load(weight + o * in + at, count);
      for (int r = 0; r < Rows; ++r) sums[o][r][0] = sums[o][r][0] + load(input + r * in + at, count) * w;
    }
  }
  Block all[Outs * Rows > kFewSums ? kBlock : Outs * Rows] = {};
  float values[kBlock];
  for (int o = 0; o < Outs; ++o) {
    for (int r = 0; r < Rows; ++r) {
      Block& one = all[o * Rows + r];
      one = sums[o][r][0];
      for (int c = 1; c < Chains; ++c) one = one + sums[o][r][c];
      if (Outs * Rows <= kFewSums) values[o * Rows + r] = sum(one);
    }
  }
  if constexpr (Outs * Rows > kFewSums) {
    const auto together = sums_of(all);
    std::memcpy(values, &together, sizeof(together));
  }
  for (int o = 0; o < Outs; ++o) {
    for (int r = 0; r < Rows; ++r) {
      const float value = values[o * Rows + r];
      args.output[(row + r) * args.step() + j + o] = args.bias ? value + args.bias[j + o] : value;
    }
  }
}

// Blocks of a step, as long as bfloat16 has its pairs.
template <typename T, int Rows>
VOXTORCH_INLINE void dense_rows(const FewRows& args, int64_t row, int64_t begin, int64_t end) {
  int64_t j = begin;
  if constexpr (Rows == 1) {
    for (; j < end; ++j) dense_tile<T, 1, 1, 4, 4>(args, row, j);
  } else if constexpr (kLanes == 16) {
    for (; j + 2 <= end; j += 2) dense_tile < T, Rows, 2, Rows<4 ? 2 : 1, 2>(args, row, j);
  }
  for (; j < end; ++j) dense_tile < T, Rows, 1, Rows<4 && kLanes == 16 ? 2 : 1, 2>(args, row, j);
}

constexpr int64_t kRowsAtOnce = kLanes == 16 ? 8 : kLanes == 8 ? 4 : 2;

template <typename T>
void dense(const FewRows& args, int64_t begin, int64_t end) {
  for (int64_t row = 0; row < args.rows; row += kRowsAtOnce) {
    const int64_t rest = args.rows - row;
    switch (rest < kRowsAtOnce ? rest : kRowsAtOnce) {
      case 1:
        dense_rows<T, 1>(args, row, begin, end);
        break;
      case 2:
        dense_rows<T, 2>(args, row, begin, end);
        break;
#if defined(__AVX2__)
      case 3:
        dense_rows<T, 3>(args, row, begin, end);
        break;
      case 4:
        dense_rows<T, 4>(args, row, begin, end);
        break;
#endif
#if defined(__AVX512F__)
      case 5:
        dense_rows<T, 5>(args, row, begin, end);
        break;
      case 6:
        dense_rows<T, 6>(args, row, begin, end);
        break;
      case 7:
        dense_rows<T, 7>(args, row, begin, end);
        break;
      case 8:
        dense_rows<T, 8>(args, row, begin, end);
        break;
#endif
    }
  }
}

// A row of inputs in the order that part_of has bfloat16's weights.
void pair_up(const float* from, float* to, int64_t in) {
  int64_t at = 0;
  for (; at + 2 * kBlock <= in; at += 2 * kBlock) {
    for (int i = 0; i < kBlock; ++i) {
      to[at + i] = from[at + 2 * i];
      to[at + kBlock + i] = from[at + 2 * i + 1];
    }
  }
  for (; at < in; ++at) to[at] = from[at];
}

}  // namespace
}  // namespace voxtorch::kernels

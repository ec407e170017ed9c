// The outputs of many_rows_linear, compiled once for each instruction set (../builds.h). Weights of some outputs are
// taken apart once into a panel, four codes of each output next to each other, so that a lane belongs to an output: the
// four inputs that all lanes need are one broadcast, and the products of a block are added before anything becomes a
// float.
#include "core/kernels/many_rows/args.h"
#include "core/kernels/row_blocks.h"
//
#include "core/kernels/few_rows/integer_rows.h"
#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace voxtorch::kernels {
namespace {

constexpr int kVectors = 2;               // of outputs
constexpr int kOuts = kVectors * kLanes;  // of a panel
constexpr int kRowsAtOnce = kLanes == 16 ? 6 : 3;
constexpr int kStepQuads = 4;      // words of four codes that share a step
constexpr int kPairWords = 16;     // a pair of blocks has 64 codes, four to a word
constexpr int kPanelWords = 4096;  // of codes, 16 kB: half of the first-level cache
constexpr int64_t kPairs = kPanelWords / (kPairWords * kOuts);
static_assert(kPanelOutputs % kOuts == 0);

// Unrolled before GCC decides what may stay in registers.
#define VOXTORCH_EACH_ROW _Pragma("GCC unroll 8") for (int r = 0; r < Rows; ++r)
#define VOXTORCH_EACH_VECTOR _Pragma("GCC unroll 2") for (int v = 0; v < kVectors; ++v)

// The row as `prepare` wrote it.
struct ManyRow {
  const int8_t* codes;
  const uint32_t* steps;
  const int32_t *negative16, *negative32;
  const float *scales, *sums;

  VOXTORCH_INLINE ManyRow(const void* rows, int64_t row, int64_t in) {
    const int64_t padded = padded_inputs(in);
    const char* from = static_cast<const char*>(rows) + row * many_rows_bytes(in);
    codes = reinterpret_cast<const int8_t*>(from);
    steps = reinterpret_cast<const uint32_t*>(from + padded);
    negative16 = reinterpret_cast<const int32_t*>(steps + padded / 16);
    negative32 = negative16 + padded / 16;
    scales = reinterpret_cast<const float*>(negative32 + padded / 32);
    sums = scales + padded / 32;
  }
};

// How many products of a code and an input, two of which are added at once, fit in 16 bits.
constexpr int runs_of(int largest) { return largest <= 15 ? 8 : largest <= 31 ? 4 : 2; }

// Whether the processor adds four products of bytes in 32 bits.
#if defined(__AVX512VNNI__)
constexpr bool kHasSums = true;
#else
constexpr bool kHasSums = false;
#endif

#if defined(__AVX512F__) && !defined(__AVX512VNNI__)
using Pairs = __m512i;
VOXTORCH_INLINE Pairs products(Words codes, Words input) {
  return _mm512_maddubs_epi16(reinterpret_cast<__m512i>(codes), reinterpret_cast<__m512i>(input));
}
VOXTORCH_INLINE Pairs signed_products(Words codes, Words input) {
  const auto code = reinterpret_cast<__m512i>(codes), with = reinterpret_cast<__m512i>(input);
  const __m512i turned = _mm512_mask_sub_epi8(with, _mm512_movepi8_mask(code), _mm512_setzero_si512(), with);
  return _mm512_maddubs_epi16(_mm512_abs_epi8(code), turned);
}
VOXTORCH_INLINE Pairs added(Pairs a, Pairs b) { return _mm512_add_epi16(a, b); }
VOXTORCH_INLINE Ints sums_of(Pairs pairs, uint32_t step) {
  return reinterpret_cast<Ints>(_mm512_madd_epi16(pairs, _mm512_set1_epi32(static_cast<int>(step))));
}
#elif defined(__AVX2__) && !defined(__AVX512F__)
using Pairs = __m256i;
VOXTORCH_INLINE Pairs products(Words codes, Words input) {
  return _mm256_maddubs_epi16(reinterpret_cast<__m256i>(codes), reinterpret_cast<__m256i>(input));
}
VOXTORCH_INLINE Pairs signed_products(Words codes, Words input) {
  const auto code = reinterpret_cast<__m256i>(codes);
  return _mm256_maddubs_epi16(_mm256_abs_epi8(code), _mm256_sign_epi8(reinterpret_cast<__m256i>(input), code));
}
VOXTORCH_INLINE Pairs added(Pairs a, Pairs b) { return _mm256_add_epi16(a, b); }
VOXTORCH_INLINE Ints sums_of(Pairs pairs, uint32_t step) {
  return reinterpret_cast<Ints>(_mm256_madd_epi16(pairs, _mm256_set1_epi32(static_cast<int>(step))));
}
#elif defined(__SSSE3__) && !defined(__AVX2__)
using Pairs = __m128i;
VOXTORCH_INLINE Pairs products(Words codes, Words input) {
  return _mm_maddubs_epi16(reinterpret_cast<__m128i>(codes), reinterpret_cast<__m128i>(input));
}
VOXTORCH_INLINE Pairs signed_products(Words codes, Words input) {
  const auto code = reinterpret_cast<__m128i>(codes);
  return _mm_maddubs_epi16(_mm_abs_epi8(code), _mm_sign_epi8(reinterpret_cast<__m128i>(input), code));
}
VOXTORCH_INLINE Pairs added(Pairs a, Pairs b) { return _mm_add_epi16(a, b); }
VOXTORCH_INLINE Ints sums_of(Pairs pairs, uint32_t step) {
  return reinterpret_cast<Ints>(_mm_madd_epi16(pairs, _mm_set1_epi32(static_cast<int>(step))));
}
#elif defined(__ARM_NEON)
// Each product in 16 bits of its own.
struct Pairs {
  int16x8_t low, high;
};
VOXTORCH_INLINE Pairs signed_products(Words codes, Words input) {
  const auto a = reinterpret_cast<int8x16_t>(codes), b = reinterpret_cast<int8x16_t>(input);
  return {vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_s8(vget_high_s8(a), vget_high_s8(b))};
}
VOXTORCH_INLINE Pairs products(Words codes, Words input) { return signed_products(codes, input); }
VOXTORCH_INLINE Pairs added(Pairs a, Pairs b) { return {vaddq_s16(a.low, b.low), vaddq_s16(a.high, b.high)}; }
VOXTORCH_INLINE Ints sums_of(Pairs pairs, uint32_t step) {
  const auto sums = reinterpret_cast<Ints>(vpaddq_s32(vpaddlq_s16(pairs.low), vpaddlq_s16(pairs.high)));
  return sums * static_cast<int32_t>(step & 0xffff);
}
#endif

// Not the library's functions: a copy that was compiled for this instruction set could be the one that the linker
// keeps.
VOXTORCH_INLINE int64_t least_of(int64_t a, int64_t b) { return a < b ? a : b; }

VOXTORCH_INLINE Words load_words(const uint32_t* from) {
  Words words;
  std::memcpy(&words, from, sizeof(words));
  return words;
}
VOXTORCH_INLINE Floats load_floats(const float* from) {
  Floats floats;
  std::memcpy(&floats, from, sizeof(floats));
  return floats;
}
VOXTORCH_INLINE uint32_t word_of(const int8_t* from) {
  uint32_t word;
  std::memcpy(&word, from, sizeof(word));
  return word;
}

// Codes of kOuts outputs for some pairs of blocks: word w of output o of a pair at [pair][w][o], their scales and what
// is added to all weights of a block at [pair][block][o].
template <typename Kind>
struct Panel {
  static constexpr int kPart = Kind::kPart, kPartsOfPair = 64 / kPart;

  alignas(64) uint32_t codes[kPanelWords];
  alignas(64) float scales[kPairs * kPartsOfPair * kOuts];
  alignas(64) float least[kPairs * 2 * kOuts];

  // The outputs from `first` on, of which the last one stands for those that are not there.
  void fill(const FewRows& args, int64_t first, int64_t first_pair, int64_t pairs) {
    const auto [weights, bytes] = block_size(args.type);
    const int64_t length = args.in / weights * bytes;
    const auto* const from = static_cast<const uint8_t*>(args.weight);
    for (int64_t pair = 0; pair < pairs; ++pair) {
      for (int o = 0; o < kOuts; o += kLanes) {
        Words words[kLanes][kParts];
        for (int lane = 0; lane < kLanes; ++lane) {
          const int64_t output = least_of(first + o + lane, args.out - 1);
          const Pair now = Kind::at(from + output * length, first_pair + pair, args.in);
          VOXTORCH_EACH_PART words[lane][k] =
              kHasSums && Kind::kSigned ? now.codes.part[k] ^ 0x80808080u : now.codes.part[k];
          if constexpr (Kind::kScaled) {
            for (int part = 0; part < kPartsOfPair; ++part) {
              scales[(pair * kPartsOfPair + part) * kOuts + o + lane] = now.scales[part * 4 / kPartsOfPair];
            }
          }
          if constexpr (Kind::kLeast) {
            for (int half = 0; half < 2; ++half) least[(pair * 2 + half) * kOuts + o + lane] = now.least[half * 2];
          }
        }
        VOXTORCH_EACH_PART turn(words, k, codes + (pair * kPairWords + k * kLanes) * kOuts + o);
      }
    }
  }

  // Rows of kLanes words as columns.
  static VOXTORCH_INLINE void turn(const Words (&rows)[kLanes][kParts], int k, uint32_t* to) {
#if defined(__AVX2__)
    Words now[kLanes], next[kLanes];
    for (int i = 0; i < kLanes; ++i) now[i] = rows[i][k];
#endif
#if defined(__AVX512F__)
    const auto wide = [](Words words) { return reinterpret_cast<__m512i>(words); };
    const auto put = [](__m512i words) { return reinterpret_cast<Words>(words); };
    for (int i = 0; i < 16; i += 2) {
      next[i] = put(_mm512_unpacklo_epi32(wide(now[i]), wide(now[i + 1])));
      next[i + 1] = put(_mm512_unpackhi_epi32(wide(now[i]), wide(now[i + 1])));
    }
    for (int i = 0; i < 16; i += 4) {
      for (int j = 0; j < 2; ++j) {
        now[i + 2 * j] = put(_mm512_unpacklo_epi64(wide(next[i + j]), wide(next[i + j + 2])));
        now[i + 2 * j + 1] = put(_mm512_unpackhi_epi64(wide(next[i + j]), wide(next[i + j + 2])));
      }
    }
    // now[4 g + c] has column 4 q + c of the rows 4 g to 4 g + 3 in its quarter q.
    for (int c = 0; c < 4; ++c) {
      const __m512i a = _mm512_shuffle_i32x4(wide(now[c]), wide(now[4 + c]), 0x88);
      const __m512i b = _mm512_shuffle_i32x4(wide(now[8 + c]), wide(now[12 + c]), 0x88);
      const __m512i d = _mm512_shuffle_i32x4(wide(now[c]), wide(now[4 + c]), 0xdd);
      const __m512i e = _mm512_shuffle_i32x4(wide(now[8 + c]), wide(now[12 + c]), 0xdd);
      next[c] = put(_mm512_shuffle_i32x4(a, b, 0x88));
      next[4 + c] = put(_mm512_shuffle_i32x4(d, e, 0x88));
      next[8 + c] = put(_mm512_shuffle_i32x4(a, b, 0xdd));
      next[12 + c] = put(_mm512_shuffle_i32x4(d, e, 0xdd));
    }
#elif defined(__AVX2__)
    const auto wide = [](Words words) { return reinterpret_cast<__m256i>(words); };
    const auto put = [](__m256i words) { return reinterpret_cast<Words>(words); };
    for (int i = 0; i < 8; i += 2) {
      next[i] = put(_mm256_unpacklo_epi32(wide(now[i]), wide(now[i + 1])));
      next[i + 1] = put(_mm256_unpackhi_epi32(wide(now[i]), wide(now[i + 1])));
    }
    for (int i = 0; i < 8; i += 4) {
      for (int j = 0; j < 2; ++j) {
        now[i + 2 * j] = put(_mm256_unpacklo_epi64(wide(next[i + j]), wide(next[i + j + 2])));
        now[i + 2 * j + 1] = put(_mm256_unpackhi_epi64(wide(next[i + j]), wide(next[i + j + 2])));
      }
    }
    for (int c = 0; c < 4; ++c) {
      next[c] = put(_mm256_permute2x128_si256(wide(now[c]), wide(now[4 + c]), 0x20));
      next[4 + c] = put(_mm256_permute2x128_si256(wide(now[c]), wide(now[4 + c]), 0x31));
    }
#else
    for (int i = 0; i < kLanes; ++i) {
      for (int j = 0; j < kLanes; ++j) to[j * kOuts + i] = rows[i][k][j];
    }
#endif
#if defined(__AVX2__)
    for (int i = 0; i < kLanes; ++i) std::memcpy(to + i * kOuts, &next[i], sizeof(Words));
#endif
  }

  // Add the products with `Rows` rows to sums[row][kOuts].
  template <int Rows>
  void add(const FewRows& args, int64_t row, int64_t first_pair, int64_t pairs, float* to) const {
    Floats sums[Rows][kVectors];
    const int8_t* inputs[Rows];
    const int32_t* negative[Rows];
    const uint32_t* steps[Rows];
    const float *scale[Rows], *totals[Rows];
    VOXTORCH_EACH_ROW {
      VOXTORCH_EACH_VECTOR sums[r][v] = load_floats(to + r * kOuts + v * kLanes);
      const ManyRow now(args.input, row + r, args.in);
      inputs[r] = now.codes + first_pair * 64;
      negative[r] = kPart == 16 ? now.negative16 + first_pair * 4 : now.negative32 + first_pair * 2;
      steps[r] = now.steps + first_pair * 4;
      scale[r] = now.scales + first_pair * 2;
      totals[r] = now.sums + first_pair * 2;
    }
    for (int64_t part = 0; part < pairs * kPartsOfPair; ++part) {
      const int64_t block = part * kPart / kInputBlock;
      Ints whole[Rows][kVectors];
      block_sums<Rows>(codes + part * (kPart / 4) * kOuts, inputs, steps, negative, part, whole);
      VOXTORCH_EACH_ROW {
        VOXTORCH_EACH_VECTOR {
          Floats both = Floats{} + scale[r][block];
          if constexpr (Kind::kScaled) both *= load_floats(scales + part * kOuts + v * kLanes);
          sums[r][v] += __builtin_convertvector(whole[r][v], Floats) * both;
          if constexpr (Kind::kLeast) sums[r][v] += load_floats(least + part * kOuts + v * kLanes) * totals[r][block];
        }
        inputs[r] += kPart;
      }
    }
    VOXTORCH_EACH_ROW { VOXTORCH_EACH_VECTOR std::memcpy(to + r * kOuts + v * kLanes, &sums[r][v], sizeof(Floats)); }
  }

  // The sums of a block of kPart weights: those of each 16 times their step.
  template <int Rows>
  static VOXTORCH_INLINE void block_sums(const uint32_t* from, const int8_t* const (&inputs)[Rows],
                                         const uint32_t* const (&steps)[Rows], const int32_t* const (&negative)[Rows],
                                         int64_t part, Ints (&whole)[Rows][kVectors]) {
    constexpr int kQuads = kPart / 4;
    constexpr bool kTurned = Kind::kSigned && !kHasSums;  // whose signs the inputs take
    constexpr int kShift = kTurned || Kind::kOffset == kNoOffset ? 0 : Kind::kOffset;
    constexpr bool kStarts = !kTurned && Kind::kOffset != kNoOffset;
    VOXTORCH_EACH_ROW {
      const Ints start = kStarts ? Ints{} + (negative[r][part] << kShift) : Ints{};
      VOXTORCH_EACH_VECTOR whole[r][v] = start;
    }
#if defined(__AVX512VNNI__)
    for (int q = 0; q < kQuads; q += kStepQuads) {
      Ints run[Rows][kVectors] = {};
      for (int i = q; i < q + kStepQuads; ++i) {
        Words now[kVectors];
        VOXTORCH_EACH_VECTOR now[v] = load_words(from + i * kOuts + v * kLanes);
        VOXTORCH_EACH_ROW {
          const Words input = Words{} + word_of(inputs[r] + 4 * i);
          VOXTORCH_EACH_VECTOR {
            run[r][v] = reinterpret_cast<Ints>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(run[r][v]),
                                                                   reinterpret_cast<__m512i>(now[v]),
                                                                   reinterpret_cast<__m512i>(input)));
          }
        }
      }
      VOXTORCH_EACH_ROW {
        const Ints step = Ints{} + static_cast<int32_t>(steps[r][(part * kQuads + q) / kStepQuads] & 0xffff);
        VOXTORCH_EACH_VECTOR whole[r][v] += run[r][v] * step;
      }
    }
#elif defined(__SSSE3__) || defined(__ARM_NEON)
    constexpr int kMost = kTurned ? 1 : runs_of(Kind::kLargest), kRun = kMost < kStepQuads ? kMost : kStepQuads;
    for (int q = 0; q < kQuads; q += kRun) {
      Pairs run[Rows][kVectors];
      _Pragma("GCC unroll 4") for (int i = 0; i < kRun; ++i) {
        Words now[kVectors];
        VOXTORCH_EACH_VECTOR now[v] = load_words(from + (q + i) * kOuts + v * kLanes);
        VOXTORCH_EACH_ROW {
          const Words input = Words{} + word_of(inputs[r] + 4 * (q + i));
          VOXTORCH_EACH_VECTOR {
            const Pairs made = kTurned ? signed_products(now[v], input) : products(now[v], input);
            run[r][v] = i == 0 ? made : added(run[r][v], made);
            // GCC would make all products of a run first, to add them as a tree, and they do not fit in the registers.
            VOXTORCH_IN_REGISTER(run[r][v]);
          }
        }
      }
      VOXTORCH_EACH_ROW {
        const uint32_t step = steps[r][(part * kQuads + q) / kStepQuads];
        VOXTORCH_EACH_VECTOR whole[r][v] += sums_of(run[r][v], step);
      }
    }
#else
    for (int q = 0; q < kQuads; ++q) {
      VOXTORCH_EACH_ROW {
        const auto step = static_cast<int32_t>(steps[r][(part * kQuads + q) / kStepQuads] & 0xffff);
        VOXTORCH_EACH_VECTOR {
          for (int lane = 0; lane < kLanes; ++lane) {
            const uint32_t word = from[q * kOuts + v * kLanes + lane];
            for (int i = 0; i < 4; ++i) {
              whole[r][v][lane] += static_cast<int8_t>(word >> 8 * i) * inputs[r][4 * q + i] * step;
            }
          }
        }
      }
    }
#endif
  }

  void rows(const FewRows& args, int64_t first_pair, int64_t pairs, float* sums) const {
    int64_t row = 0;
    for (; row + kRowsAtOnce <= args.rows; row += kRowsAtOnce) {
      add<kRowsAtOnce>(args, row, first_pair, pairs, sums + row * kOuts);
    }
    for (; row + 2 <= args.rows; row += 2) add<2>(args, row, first_pair, pairs, sums + row * kOuts);
    for (; row < args.rows; ++row) add<1>(args, row, first_pair, pairs, sums + row * kOuts);
  }
};

template <typename Kind>
void many_outputs(const FewRows& args, int64_t begin, int64_t end, float* sums) {
  Panel<Kind> panel;
  const int64_t pairs = padded_inputs(args.in) / 64;
  for (int64_t first = begin; first < end; first += kOuts) {
    std::memset(sums, 0, args.rows * kOuts * sizeof(float));
    for (int64_t pair = 0; pair < pairs; pair += kPairs) {
      const int64_t count = least_of(kPairs, pairs - pair);
      panel.fill(args, first, pair, count);
      panel.rows(args, pair, count, sums);
    }
    const int64_t count = least_of(kOuts, end - first);
    for (int64_t row = 0; row < args.rows; ++row) {
      const float* const from = sums + row * kOuts;
      float* const to = args.output + row * args.step() + first;
      for (int64_t i = 0; i < count; ++i) {
        const float value = Kind::kScaled ? from[i] : from[i] * args.scale[first + i];
        to[i] = args.bias == nullptr ? value : value + args.bias[first + i];
      }
    }
  }
}

}  // namespace

void VOXTORCH_BUILD(many_rows)(const FewRows& args, int64_t begin, int64_t end, float* sums) {
  switch (args.type) {
    case FewRows::Weight::int8:
      return many_outputs<RowInt8>(args, begin, end, sums);
    case FewRows::Weight::q8_0:
      return many_outputs<Q8_0>(args, begin, end, sums);
    case FewRows::Weight::q4_0:
      return many_outputs<Q4_0>(args, begin, end, sums);
    case FewRows::Weight::q4_1:
      return many_outputs<Q4_1>(args, begin, end, sums);
    case FewRows::Weight::q4_k:
      return many_outputs<Q4_K>(args, begin, end, sums);
    case FewRows::Weight::q6_k:
      return many_outputs<Q6_K>(args, begin, end, sums);
    default:
      return;
  }
}

namespace {

// The largest magnitude of 16, as the bits of a float, which are ordered as the numbers are.
VOXTORCH_INLINE uint32_t most_of(const float* from) {
  uint32_t most = 0;
#if defined(__AVX2__)
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  const auto load = [&](const float* at) __attribute__((always_inline)) {
    return _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(at)), magnitude);
  };
  const __m256i eight = _mm256_max_epi32(load(from), load(from + 8));
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  most = static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1))));
#else
  for (int i = 0; i < 16; ++i) {
    uint32_t word;
    std::memcpy(&word, from + i, sizeof(word));
    word &= 0x7fffffffu;
    most = word > most ? word : most;
  }
#endif
  return most;
}

// 16 numbers as codes of so many to 1; returns their sum.
VOXTORCH_INLINE int32_t round_sixteen(const float* from, float inverse, int8_t* codes) {
#if defined(__AVX2__)
  __m256i whole[2];
  for (int i = 0; i < 2; ++i) {
    const __m256 count = _mm256_mul_ps(_mm256_loadu_ps(from + 8 * i), _mm256_set1_ps(inverse));
    const __m256 half = _mm256_or_ps(_mm256_and_ps(count, _mm256_set1_ps(-0.0f)), _mm256_set1_ps(0.5f));
    whole[i] = _mm256_cvttps_epi32(_mm256_add_ps(count, half));
  }
  const __m256i halves = _mm256_permute4x64_epi64(_mm256_packs_epi32(whole[0], whole[1]), 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
  std::memcpy(codes, &bytes, sizeof(bytes));
  const __m256i fours = _mm256_madd_epi16(halves, _mm256_set1_epi16(1));
  __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1));
  sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xb1)));
#else
  int32_t sum = 0;
  for (int i = 0; i < 16; ++i) {
    const float count = from[i] * inverse;
    const auto whole = static_cast<int32_t>(count + __builtin_copysignf(0.5f, count));
    codes[i] = static_cast<int8_t>(whole);
    sum += whole;
  }
  return sum;
#endif
}

}  // namespace

void VOXTORCH_BUILD(many_rows_prepare)(const float* input, int64_t rows, int64_t in, void* to) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  const int64_t padded = padded_inputs(in);
  for (int64_t row = 0; row < rows; ++row) {
    const ManyRow now(to, row, in);
    auto* const codes = const_cast<int8_t*>(now.codes);
    auto* const steps = const_cast<uint32_t*>(now.steps);
    auto* const negative16 = const_cast<int32_t*>(now.negative16);
    auto* const negative32 = const_cast<int32_t*>(now.negative32);
    auto *const scales = const_cast<float*>(now.scales), *const sums = const_cast<float*>(now.sums);
    for (int64_t at = 0, block = 0; at < padded; at += kInputBlock, ++block) {
      const float* from = input + row * in + at;
      float rest[kInputBlock] = {};
      if (at + kInputBlock > in) {
        if (at < in) std::memcpy(rest, from, (in - at) * sizeof(float));
        from = rest;
      }
      const uint32_t most[2] = {most_of(from), most_of(from + 16)};
      const uint32_t larger = most[0] > most[1] ? most[0] : most[1];
      float largest, scale;
      std::memcpy(&largest, &larger, sizeof(largest));
      scale = largest / (127 * 127);
      const bool counts = larger < kInfinity && scale > 1e-37f;
      int32_t all = 0;
      for (int half = 0; half < 2; ++half) {
        int32_t step = 1, sum = 0;
        if (counts) {
          float own;
          std::memcpy(&own, &most[half], sizeof(own));
          const float share = own / largest * 127;
          step = static_cast<int32_t>(share);
          step += static_cast<float>(step) < share || step == 0 ? 1 : 0;
          sum = round_sixteen(from + 16 * half, 1 / (scale * static_cast<float>(step)), codes + at + 16 * half);
        } else {
          std::memset(codes + at + 16 * half, 0, 16);
        }
        steps[2 * block + half] = static_cast<uint32_t>(step) * 0x10001u;
        negative16[2 * block + half] = -step * sum;
        all += step * sum;
      }
      if (larger >= kInfinity) scale = __builtin_nanf("");
      scales[block] = scale;
      sums[block] = scale * static_cast<float>(all);
      negative32[block] = -all;
    }
  }
}

}  // namespace voxtorch::kernels

// Products of weights in integers with inputs in integers, included by rows.h. 64 weights are taken at once, two blocks
// of 32: four products and their sum in each of 16 lanes, exact, then one multiplication with the scales of the block.
#if defined(__SSSE3__)
#include <immintrin.h>
#endif

#include "core/kernels/gguf_blocks/half.h"

namespace voxtorch::kernels {
namespace {

// 64 bytes: lane l has four of them.
struct Codes {
  Words part[kParts];
};
struct Quads {
  Ints part[kParts];
};

VOXTORCH_INLINE Codes load_codes(const uint8_t* from) {
  Codes codes;
  VOXTORCH_EACH_PART std::memcpy(&codes.part[k], from + k * 4 * kLanes, sizeof(Words));
  return codes;
}

// 32 bytes of each.
VOXTORCH_INLINE Codes load_codes(const uint8_t* first, const uint8_t* second) {
  Codes codes;
#if defined(__AVX512F__)
  const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first));
  const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second));
  codes.part[0] = reinterpret_cast<Words>(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
#else
  VOXTORCH_EACH_PART {
    const int at = k * 4 * kLanes;
    std::memcpy(&codes.part[k], at < 32 ? first + at : second + at - 32, sizeof(Words));
  }
#endif
  return codes;
}

// 16 bytes of each, twice.
VOXTORCH_INLINE Codes load_twice(const uint8_t* first, const uint8_t* second) {
  Codes codes;
#if defined(__AVX2__)
  const auto twice = [](const uint8_t* from) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  };
#endif
#if defined(__AVX512F__)
  codes.part[0] = reinterpret_cast<Words>(_mm512_inserti64x4(_mm512_castsi256_si512(twice(first)), twice(second), 1));
#elif defined(__AVX2__)
  codes.part[0] = reinterpret_cast<Words>(twice(first));
  codes.part[1] = reinterpret_cast<Words>(twice(second));
#else
  VOXTORCH_EACH_PART std::memcpy(&codes.part[k], k < 2 ? first : second, sizeof(Words));
#endif
  return codes;
}

// Each quarter of the lanes shifted by its own number, then the bits of `mask`.
template <int First, int Second, int Third, int Fourth>
VOXTORCH_INLINE Codes bits(const Codes& codes, uint32_t mask) {
  constexpr uint32_t by[4] = {First, Second, Third, Fourth};
  Codes result;
  VOXTORCH_EACH_PART {
    Words shift;
    for (int lane = 0; lane < kLanes; ++lane) shift[lane] = by[(k * kLanes + lane) / 4];
    result.part[k] = codes.part[k] >> shift & (mask * 0x01010101u);
  }
  return result;
}

constexpr int kNoOffset = -1;

// The sums of four products each: of bytes up to 63 with `input`, less 2^Offset times the sum of the inputs.
template <int Offset>
VOXTORCH_INLINE Quads quads(const Codes& codes, const int8_t* input, const int32_t* negative) {
  Quads result;
  VOXTORCH_EACH_PART {
    Ints start = {};
    if (Offset != kNoOffset) {
      std::memcpy(&start, negative + k * kLanes, sizeof(start));
      start = start << (Offset == kNoOffset ? 0 : Offset);
    }
    const int8_t* from = input + k * 4 * kLanes;
#if defined(__AVX512VNNI__)
    result.part[k] = reinterpret_cast<Ints>(_mm512_dpbusd_epi32(
        reinterpret_cast<__m512i>(start), reinterpret_cast<__m512i>(codes.part[k]), _mm512_loadu_si512(from)));
#elif defined(__AVX512F__)
    const __m512i pairs = _mm512_maddubs_epi16(reinterpret_cast<__m512i>(codes.part[k]), _mm512_loadu_si512(from));
    result.part[k] = start + reinterpret_cast<Ints>(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#elif defined(__AVX2__)
    const __m256i with = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    const __m256i pairs = _mm256_maddubs_epi16(reinterpret_cast<__m256i>(codes.part[k]), with);
    result.part[k] = start + reinterpret_cast<Ints>(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#elif defined(__SSSE3__)
    const __m128i with = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    const __m128i pairs = _mm_maddubs_epi16(reinterpret_cast<__m128i>(codes.part[k]), with);
    result.part[k] = start + reinterpret_cast<Ints>(_mm_madd_epi16(pairs, _mm_set1_epi16(1)));
#else
    uint8_t bytes[4 * kLanes];
    std::memcpy(bytes, &codes.part[k], sizeof(bytes));
    for (int i = 0; i < 4 * kLanes; ++i) start[i / 4] += bytes[i] * from[i];
    result.part[k] = start;
#endif
  }
  return result;
}

// The same of signed bytes, as they are. Two products of these would not fit 16 bits where one factor is taken for
// unsigned, so the sign goes to the input (which is never -128), or to an offset.
VOXTORCH_INLINE Quads signed_quads(const Codes& codes, const int8_t* input, const int32_t* negative) {
#if defined(__AVX512VNNI__)
  Codes above;
  VOXTORCH_EACH_PART above.part[k] = codes.part[k] ^ 0x80808080u;
  return quads<7>(above, input, negative);
#else
  (void)negative;
  Quads result;
  VOXTORCH_EACH_PART {
    const int8_t* from = input + k * 4 * kLanes;
#if defined(__AVX512F__)
    const auto code = reinterpret_cast<__m512i>(codes.part[k]);
    const __m512i with = _mm512_loadu_si512(from);
    const __m512i turned = _mm512_mask_sub_epi8(with, _mm512_movepi8_mask(code), _mm512_setzero_si512(), with);
    const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(code), turned);
    result.part[k] = reinterpret_cast<Ints>(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#elif defined(__AVX2__)
    const auto code = reinterpret_cast<__m256i>(codes.part[k]);
    const __m256i turned = _mm256_sign_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)), code);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(code), turned);
    result.part[k] = reinterpret_cast<Ints>(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#elif defined(__SSSE3__)
    const auto code = reinterpret_cast<__m128i>(codes.part[k]);
    const __m128i turned = _mm_sign_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)), code);
    const __m128i pairs = _mm_maddubs_epi16(_mm_abs_epi8(code), turned);
    result.part[k] = reinterpret_cast<Ints>(_mm_madd_epi16(pairs, _mm_set1_epi16(1)));
#else
    int8_t bytes[4 * kLanes];
    std::memcpy(bytes, &codes.part[k], sizeof(bytes));
    result.part[k] = Ints{};
    for (int i = 0; i < 4 * kLanes; ++i) result.part[k][i / 4] += bytes[i] * from[i];
#endif
  }
  return result;
#endif
}

VOXTORCH_INLINE Block floats_of(const Quads& quads) {
  Block block;
  VOXTORCH_EACH_PART block.part[k] = __builtin_convertvector(quads.part[k], Floats);
  return block;
}

// Each of the four in a quarter of the lanes.
VOXTORCH_INLINE Block spread(Four scales) {
  Block block;
#if defined(__AVX512F__)
  const __m512i places = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  block.part[0] =
      reinterpret_cast<Floats>(_mm512_permutexvar_ps(places, _mm512_castps128_ps512(reinterpret_cast<__m128>(scales))));
#elif defined(__AVX2__)
  const __m256 wide = _mm256_castps128_ps256(reinterpret_cast<__m128>(scales));
  block.part[0] = reinterpret_cast<Floats>(_mm256_permutevar8x32_ps(wide, _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0)));
  block.part[1] = reinterpret_cast<Floats>(_mm256_permutevar8x32_ps(wide, _mm256_set_epi32(3, 3, 3, 3, 2, 2, 2, 2)));
#else
  VOXTORCH_EACH_PART block.part[k] = Floats{scales[k], scales[k], scales[k], scales[k]};
#endif
  return block;
}

// (a, a, b, b), for two blocks.
VOXTORCH_INLINE Four twice_each(const float* from) { return Four{from[0], from[0], from[1], from[1]}; }

// The float16 of two blocks: (a, a, b, b).
VOXTORCH_INLINE Four halves_at(const uint8_t* first, const uint8_t* second) {
#if defined(__F16C__)
  uint16_t a, b;
  std::memcpy(&a, first, sizeof(a));
  std::memcpy(&b, second, sizeof(b));
  const __m128i both = _mm_insert_epi16(_mm_cvtsi32_si128(a), b, 1);
  const __m128 values = _mm_cvtph_ps(both);
  return reinterpret_cast<Four>(_mm_unpacklo_ps(values, values));
#else
  const float a = half_at(first), b = half_at(second);
  return Four{a, a, b, b};
#endif
}

// The bytes of a word as numbers, the lowest first.
template <typename Byte>
VOXTORCH_INLINE Four floats_of_bytes(uint32_t word) {
#if defined(__SSE4_1__)
  const __m128i bytes = _mm_cvtsi32_si128(static_cast<int>(word));
  const __m128i whole = static_cast<Byte>(-1) < 0 ? _mm_cvtepi8_epi32(bytes) : _mm_cvtepu8_epi32(bytes);
  return reinterpret_cast<Four>(_mm_cvtepi32_ps(whole));
#else
  const auto byte = [&](int i) { return static_cast<float>(static_cast<Byte>(word >> 8 * i)); };
  return Four{byte(0), byte(1), byte(2), byte(3)};
#endif
}

// Each kind gives the codes of the blocks 2 * pair and 2 * pair + 1 of a row, their scales (one for each kPart), and
// where it has some what is added to all weights of a block. Magnitudes of codes are at most kLargest. An odd last
// block stands for the one after it too, whose inputs are zero.
struct Pair {
  Codes codes;
  Four scales, least;
};

template <int Bytes>
VOXTORCH_INLINE const uint8_t* second_of(const uint8_t* first, int64_t pair, int64_t in) {
  return (2 * pair + 1) * kInputBlock < in ? first + Bytes : first;
}

struct RowInt8 {
  static constexpr bool kSigned = true, kLeast = false, kScaled = false;
  static constexpr int kPart = 32, kLargest = 127;
  static constexpr int kOffset = 7;
  static VOXTORCH_INLINE Pair at(const uint8_t* row, int64_t pair, int64_t in) {
    const int64_t rest = in - pair * 64;
    if (rest >= 64) return {load_codes(row + pair * 64), Four{}, Four{}};
    uint8_t last[64] = {};
    std::memcpy(last, row + pair * 64, rest);
    return {load_codes(last), Four{}, Four{}};
  }
};

struct Q8_0 {
  static constexpr bool kSigned = true, kLeast = false, kScaled = true;
  static constexpr int kPart = 32, kLargest = 127;
  static constexpr int kOffset = 7;
  static VOXTORCH_INLINE Pair at(const uint8_t* row, int64_t pair, int64_t in) {
    const uint8_t* a = row + pair * 68;
    const uint8_t* b = second_of<34>(a, pair, in);
    return {load_codes(a + 2, b + 2), halves_at(a, b), Four{}};
  }
};

struct Q4_0 {
  static constexpr bool kSigned = false, kLeast = false, kScaled = true;
  static constexpr int kPart = 32, kLargest = 15;
  static constexpr int kOffset = 3;
  static VOXTORCH_INLINE Pair at(const uint8_t* row, int64_t pair, int64_t in) {
    const uint8_t* a = row + pair * 36;
    const uint8_t* b = second_of<18>(a, pair, in);
    return {bits<0, 4, 0, 4>(load_twice(a + 2, b + 2), 15), halves_at(a, b), Four{}};
  }
};

struct Q4_1 {
  static constexpr bool kSigned = false, kLeast = true, kScaled = true;
  static constexpr int kPart = 32, kLargest = 15;
  static constexpr int kOffset = kNoOffset;
  static VOXTORCH_INLINE Pair at(const uint8_t* row, int64_t pair, int64_t in) {
    const uint8_t* a = row + pair * 40;
    const uint8_t* b = second_of<20>(a, pair, in);
    return {bits<0, 4, 0, 4>(load_twice(a + 4, b + 4), 15), halves_at(a, b), halves_at(a + 2, b + 2)};
  }
};

struct Q4_K {
  static constexpr bool kSigned = false, kLeast = true, kScaled = true;
  static constexpr int kPart = 32, kLargest = 15;
  static constexpr int kOffset = kNoOffset;
  static VOXTORCH_INLINE Pair at(const uint8_t* row, int64_t pair, int64_t) {
    const uint8_t* block = row + pair / 4 * 144;
    const int64_t part = pair % 4;  // 64 of the 256
    const uint8_t* packed = block + 4;
    // Two scales and two of what is added, of 6 bits each, as bytes of a word.
    const auto two = [&](int64_t i) -> uint32_t { return packed[i] | packed[i + 1] << 8; };
    const int64_t i = 2 * part;
    const uint32_t word = part < 2 ? (two(i) & 0x3f3f) | (two(i + 4) & 0x3f3f) << 16
                                   : (two(i + 4) & 0x0f0f) | (two(i - 4) >> 2 & 0x3030) | (two(i + 4) & 0xf0f0) << 12 |
                                         (two(i) & 0xc0c0) << 14;
    const Four d = halves_at(block, block + 2);
    const Four both = floats_of_bytes<uint8_t>(word) * Four{d[0], d[1], -d[2], -d[3]};
    const Four scales = __builtin_shufflevector(both, both, 0, 0, 1, 1);
    const Four least = __builtin_shufflevector(both, both, 2, 2, 3, 3);
    const uint8_t* codes = block + 16 + part * 32;
    return {bits<0, 0, 4, 4>(load_codes(codes, codes), 15), scales, least};
  }
};

struct Q6_K {
  static constexpr bool kSigned = false, kLeast = false, kScaled = true;
  static constexpr int kPart = 16, kLargest = 63;
  static constexpr int kOffset = 5;
  static VOXTORCH_INLINE Pair at(const uint8_t* row, int64_t pair, int64_t) {
    const uint8_t* block = row + pair / 4 * 210;
    const int64_t half = pair / 2 % 2;
    const Codes low = load_codes(block + half * 64);
    const Codes high = load_codes(block + 128 + half * 32, block + 128 + half * 32);
    Codes codes;
    if (pair % 2 == 0) {
      const Codes four = bits<0, 0, 0, 0>(low, 15), two = bits<0, 0, 2, 2>(high, 3);
      VOXTORCH_EACH_PART codes.part[k] = four.part[k] | two.part[k] << 4;
    } else {
      const Codes four = bits<4, 4, 4, 4>(low, 15), two = bits<4, 4, 6, 6>(high, 3);
      VOXTORCH_EACH_PART codes.part[k] = four.part[k] | two.part[k] << 4;
    }
    uint32_t scales;
    std::memcpy(&scales, block + 192 + pair % 4 * 4, sizeof(scales));
    const float d = half_at(block + 208);
    const Four whole = floats_of_bytes<int8_t>(scales);
    return {codes, whole * Four{d, d, d, d}, Four{}};
  }
};

struct IntegerRow {
  const int8_t* codes;
  const int32_t* negative;
  const float *scales, *sums;

  VOXTORCH_INLINE IntegerRow(const void* rows, int64_t row, int64_t in) {
    const int64_t padded = padded_inputs(in);
    const char* from = static_cast<const char*>(rows) + row * integer_row_bytes(in);
    codes = reinterpret_cast<const int8_t*>(from);
    negative = reinterpret_cast<const int32_t*>(from + padded);
    scales = reinterpret_cast<const float*>(from + 2 * padded);
    sums = scales + padded / kInputBlock;
  }
};

VOXTORCH_INLINE float sum_of_four(Four four) { return (four[0] + four[2]) + (four[1] + four[3]); }
VOXTORCH_INLINE Four sums_of_four(Four a, Four b, Four c, Four d) {
  const Four first = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
  const Four second = __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);
  return __builtin_shufflevector(first, second, 0, 2, 4, 6) + __builtin_shufflevector(first, second, 1, 3, 5, 7);
}

// The least bytes ahead of what is read: the processor's own look-ahead ends with a page of memory.
constexpr int64_t kAheadOfCodes = 4096;

template <typename Kind>
struct Integers {
  static constexpr int kMostRows = kLanes == 16 ? 4 : 2;
  // Of one row: their inputs are read once for all.
  static constexpr int kMostOuts = kLanes == 16 ? 4 : 1;

  // `Outs` outputs of `Rows` rows at once, each in two chains, to sums[out][row].
  template <int Rows, int Outs>
  static VOXTORCH_INLINE void dot(const FewRows& args, int64_t row, int64_t j, float* sums) {
    const auto [weights, bytes] = block_size(args.type);
    const int64_t length = args.in / weights * bytes;
    const uint8_t* codes = static_cast<const uint8_t*>(args.weight) + j * length;
    const int64_t pairs = padded_inputs(args.in) / 64;
    const int64_t pair_bytes = weights == 256 ? bytes / 4 : 64 / weights * bytes;
    // The same place of outputs that come later, as all of these before them are read meanwhile.
    const int64_t ahead = (kAheadOfCodes + Outs * length - 1) / (Outs * length) * (Outs * length);
    Block chains[Outs][Rows][2] = {};
    Four least[Outs][Rows] = {};
    const IntegerRow first(args.input, row, args.in);
    const int64_t stride = integer_row_bytes(args.in);
    const auto step = [&](int64_t pair, int chain) __attribute__((always_inline)) {
      for (int o = 0; o < Outs; ++o) {
        const uint8_t* own = codes + o * length;
        __builtin_prefetch(own + pair * pair_bytes + ahead);
        const Pair now = Kind::at(own, pair, args.in);
        for (int r = 0; r < Rows; ++r) {
          const auto of_row = [&](const auto* from) __attribute__((always_inline)) {
            return reinterpret_cast<decltype(from)>(reinterpret_cast<const char*>(from) + r * stride);
          };
          const int8_t* input = of_row(first.codes) + pair * 64;
          const int32_t* negative = of_row(first.negative) + pair * 16;
          Quads whole;
          if constexpr (Kind::kSigned)
            whole = signed_quads(now.codes, input, negative);
          else
            whole = quads<Kind::kOffset>(now.codes, input, negative);
          Four scales = twice_each(of_row(first.scales) + 2 * pair);
          if constexpr (Kind::kScaled) scales = scales * now.scales;
          chains[o][r][chain] = chains[o][r][chain] + floats_of(whole) * spread(scales);
          if constexpr (Kind::kLeast) {
            least[o][r] = least[o][r] + twice_each(of_row(first.sums) + 2 * pair) * now.least;
          }
        }
      }
    };
    int64_t pair = 0;
    for (; pair + 2 <= pairs; pair += 2) {
      step(pair, 0);
      step(pair + 1, 1);
    }
    if (pair < pairs) step(pair, 0);
    Four four[Outs][Rows];
    for (int o = 0; o < Outs; ++o) {
      for (int r = 0; r < Rows; ++r) four[o][r] = folded(chains[o][r][0] + chains[o][r][1]);
    }
    if constexpr (Outs == 4 && Rows == 1) {
      const Four all = sums_of_four(four[0][0], four[1][0], four[2][0], four[3][0]);
      std::memcpy(sums, &all, sizeof(all));
    } else {
      for (int o = 0; o < Outs; ++o) {
        for (int r = 0; r < Rows; ++r) sums[o * Rows + r] = sum_of_four(four[o][r]);
      }
    }
    for (int o = 0; o < Outs; ++o) {
      for (int r = 0; r < Rows; ++r) {
        float& sum = sums[o * Rows + r];
        if constexpr (Kind::kLeast) sum += least[o][r][0] + least[o][r][2];
        if constexpr (!Kind::kScaled) sum *= args.scale[j + o];
      }
    }
  }

  template <int Rows, int Outs>
  static VOXTORCH_INLINE void keep(const FewRows& args, int64_t row, int64_t j) {
    float sums[Outs * Rows];
    dot<Rows, Outs>(args, row, j, sums);
    for (int o = 0; o < Outs; ++o) {
      for (int r = 0; r < Rows; ++r) {
        const float value = sums[o * Rows + r];
        args.output[(row + r) * args.step() + j + o] = args.bias ? value + args.bias[j + o] : value;
      }
    }
  }
};

// Outputs that are taken together where there are many rows: their weights stay near.
constexpr int64_t kNear = 16;

template <typename Kind>
VOXTORCH_INLINE void integer_outputs(const FewRows& args, int64_t begin, int64_t end) {
  using Now = Integers<Kind>;
  constexpr int kMost = Now::kMostRows, kOuts = Now::kMostOuts;
  for (int64_t from = begin; from < end; from += kNear) {
    const int64_t to = from + kNear < end ? from + kNear : end;
    int64_t row = 0;
    for (; row + kMost <= args.rows; row += kMost) {
      for (int64_t j = from; j < to; ++j) Now::template keep<kMost, 1>(args, row, j);
    }
    for (; row < args.rows; ++row) {
      int64_t j = from;
      for (; j + kOuts <= to; j += kOuts) Now::template keep<1, kOuts>(args, row, j);
      for (; j < to; ++j) Now::template keep<1, 1>(args, row, j);
    }
  }
}

// 32 inputs share a scale, the largest magnitude over 127; halves go away from zero. NaN or infinity makes all
// of them NaN.
VOXTORCH_INLINE void prepare_block(const float* from, int8_t* codes, int32_t* negative, float* scale, float* sum) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  uint32_t most = 0;
#if defined(__AVX2__)
  __m256 values[4];
  __m256i largest_of = _mm256_setzero_si256();
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  for (int i = 0; i < 4; ++i) {
    values[i] = _mm256_loadu_ps(from + 8 * i);
    largest_of = _mm256_max_epi32(largest_of, _mm256_and_si256(_mm256_castps_si256(values[i]), magnitude));
  }
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(largest_of), _mm256_extracti128_si256(largest_of, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  most = static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1))));
#else
  uint32_t words[kInputBlock];
  std::memcpy(words, from, sizeof(words));
  for (int i = 0; i < kInputBlock; ++i) {
    const uint32_t magnitude = words[i] & 0x7fffffffu;
    most = magnitude > most ? magnitude : most;
  }
#endif
  float largest;
  std::memcpy(&largest, &most, sizeof(largest));
  float d = largest / 127;
  const bool is_finite = most < kInfinity;
  const float inverse = is_finite && d > 1e-37f ? 1 / d : 0;
  if (!is_finite) d = __builtin_nanf("");
  int32_t all = 0;
#if defined(__AVX2__)
  __m256i whole[4];
  for (int i = 0; i < 4; ++i) {
    const __m256 step = is_finite ? _mm256_mul_ps(values[i], _mm256_set1_ps(inverse)) : _mm256_setzero_ps();
    const __m256 half = _mm256_or_ps(_mm256_and_ps(step, _mm256_set1_ps(-0.0f)), _mm256_set1_ps(0.5f));
    whole[i] = _mm256_cvttps_epi32(_mm256_add_ps(step, half));
  }
  const __m256i bytes = _mm256_permutevar8x32_epi32(
      _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3])),
      _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  std::memcpy(codes, &bytes, sizeof(bytes));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
  const __m256i negatives = _mm256_madd_epi16(pairs, _mm256_set1_epi16(-1));
  std::memcpy(negative, &negatives, sizeof(negatives));
  __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(negatives), _mm256_extracti128_si256(negatives, 1));
  sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4e));
  all = -_mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xb1)));
#else
  int32_t whole[kInputBlock];
  for (int i = 0; i < kInputBlock; ++i) {
    const float step = is_finite ? from[i] * inverse : 0;
    whole[i] = static_cast<int32_t>(step + __builtin_copysignf(0.5f, step));
  }
  for (int i = 0; i < kInputBlock; ++i) codes[i] = static_cast<int8_t>(whole[i]);
  for (int i = 0; i < kInputBlock; i += 4) {
    const int32_t four = whole[i] + whole[i + 1] + whole[i + 2] + whole[i + 3];
    negative[i / 4] = -four;
    all += four;
  }
#endif
  *scale = d;
  *sum = d * static_cast<float>(all);
}

VOXTORCH_INLINE void prepare_rows(const float* input, int64_t rows, int64_t in, void* to) {
  const int64_t padded = padded_inputs(in);
  for (int64_t row = 0; row < rows; ++row) {
    auto* const base = static_cast<char*>(to) + row * integer_row_bytes(in);
    auto* const codes = reinterpret_cast<int8_t*>(base);
    auto* const negative = reinterpret_cast<int32_t*>(base + padded);
    auto* const scales = reinterpret_cast<float*>(base + 2 * padded);
    auto* const sums = scales + padded / kInputBlock;
    for (int64_t at = 0; at < padded; at += kInputBlock) {
      const int64_t block = at / kInputBlock;
      if (at + kInputBlock <= in) {
        prepare_block(input + row * in + at, codes + at, negative + at / 4, scales + block, sums + block);
        continue;
      }
      float rest[kInputBlock] = {};
      if (at < in) std::memcpy(rest, input + row * in + at, (in - at) * sizeof(float));
      prepare_block(rest, codes + at, negative + at / 4, scales + block, sums + block);
    }
  }
}

}  // namespace
}  // namespace voxtorch::kernels

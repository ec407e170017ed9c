// The outputs of few_rows_linear, compiled once for each instruction set (../builds.h).
#include "core/kernels/few_rows/args.h"
#include "core/kernels/row_blocks.h"
//
#include "core/kernels/few_rows/integer_rows.h"

namespace voxtorch::kernels {
namespace {

constexpr int kChains = 4;        // of nf4
constexpr int64_t kAhead = 2048;  // bytes

// The sums of a tile of rows and outputs, which share what they load. Each is one chain of fused multiply-adds over 16
// lanes, so that its bits depend neither on the tile nor on the instruction set.
template <typename T, int Rows, int Outs>
VOXTORCH_INLINE void dense_tile(const FewRows& args, int64_t row, int64_t out) {
  const float* const input = static_cast<const float*>(args.input) + row * args.in;
  const T* const weight = static_cast<const T*>(args.weight) + out * args.in;
  Block totals[Rows][Outs] = {};
  int64_t at = 0;
  // Where the next tile's weights stand; the processor's own look-ahead ends with a page of memory.
  const int64_t ahead = Outs == 1 ? kAhead / static_cast<int64_t>(sizeof(T)) : Outs * args.in;
  for (; at + kBlock <= args.in; at += kBlock) {
    for (int j = 0; j < Outs; ++j) __builtin_prefetch(weight + j * args.in + at + ahead);
    VOXTORCH_EACH_PART {
      Floats weights[Outs];
      for (int j = 0; j < Outs; ++j) weights[j] = load_part(weight + j * args.in + at + k * kLanes);
      for (int r = 0; r < Rows; ++r) {
        Floats x = load_part(input + r * args.in + at + k * kLanes);
        // Loaded once for all outputs: GCC would make it a part of each multiplication.
        if (Outs > 1) VOXTORCH_IN_REGISTER(x);
        for (int j = 0; j < Outs; ++j) {
          totals[r][j].part[k] = multiply_add(x, weights[j], totals[r][j].part[k]);
        }
      }
    }
  }
  if (at < args.in) {
    const int64_t count = args.in - at;
    for (int j = 0; j < Outs; ++j) {
      const Block w = load(weight + j * args.in + at, count);
      for (int r = 0; r < Rows; ++r) {
        const Block x = load(input + r * args.in + at, count);
        VOXTORCH_EACH_PART totals[r][j].part[k] = multiply_add(x.part[k], w.part[k], totals[r][j].part[k]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int j = 0; j < Outs; ++j) {
      const float total = sum(totals[r][j]);
      args.output[(row + r) * args.step() + out + j] = args.bias ? total + args.bias[out + j] : total;
    }
  }
}

// Sums of a tile and what they are made of must fit into the registers: 16 of AVX2 and SSE, else 32.
constexpr int kTileRows = kLanes == 16 ? 6 : 3;
constexpr int outs_of_tile(int rows) { return rows == 1 ? 1 : kLanes == 16 && rows > 2 ? 4 : 2; }
constexpr int64_t kWeightBytes = 1 << 17;  // that many stay in the second-level cache for the next rows

template <typename T, int Rows>
VOXTORCH_INLINE void dense_rows(const FewRows& args, int64_t row, int64_t begin, int64_t end) {
  constexpr int kOuts = outs_of_tile(Rows);
  int64_t out = begin;
  for (; out + kOuts <= end; out += kOuts) dense_tile<T, Rows, kOuts>(args, row, out);
  for (; out < end; ++out) dense_tile<T, Rows, 1>(args, row, out);
}

template <typename T>
void dense_outputs(const FewRows& args, int64_t begin, int64_t end) {
  const int64_t fitting = kWeightBytes / static_cast<int64_t>(sizeof(T)) / (args.in < 1 ? 1 : args.in);
  const int64_t most = args.rows <= kTileRows ? end - begin : fitting < 4 ? 4 : fitting / 4 * 4;
  for (int64_t from = begin; from < end; from += most) {
    const int64_t to = end - from < most ? end : from + most;
    for (int64_t row = 0; row < args.rows;) {
      const int64_t left = args.rows - row;
      // Two of two are faster than three and one.
      const int64_t rows = left == kTileRows + 1 ? (left + 1) / 2 : left < kTileRows ? left : kTileRows;
      if constexpr (kTileRows > 3) {
        if (rows == 6) dense_rows<T, 6>(args, row, from, to);
        if (rows == 5) dense_rows<T, 5>(args, row, from, to);
        if (rows == 4) dense_rows<T, 4>(args, row, from, to);
      }
      if (rows == 3) dense_rows<T, 3>(args, row, from, to);
      if (rows == 2) dense_rows<T, 2>(args, row, from, to);
      if (rows == 1) dense_rows<T, 1>(args, row, from, to);
      row += rows;
    }
  }
}

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
        args.output[(row + r) * args.step() + j] = args.bias ? sums[r] + args.bias[j] : sums[r];
      }
      row += many;
    }
  }
}

}  // namespace

void VOXTORCH_BUILD(few_rows)(const FewRows& args, int64_t begin, int64_t end) {
  switch (args.type) {
    case FewRows::Weight::float32:
      return dense_outputs<float>(args, begin, end);
    case FewRows::Weight::bfloat16:
      return dense_outputs<BFloat16>(args, begin, end);
    case FewRows::Weight::float16:
      return dense_outputs<Float16>(args, begin, end);
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

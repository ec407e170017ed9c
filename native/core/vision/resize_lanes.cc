// See resize_lanes.h. Compiled once for each instruction set (../kernels/builds.h). Sums are integers modulo 2^32, so
// that no build differs from another in a bit. With AVX2 two inputs are multiplied at once by 16-bit halves of their
// weights: the sum is that of the upper halves, shifted, and of the lower.
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "core/vision/resize_lanes.h"

namespace voxtorch::vision {
namespace {

#define VOXTORCH_INLINE inline __attribute__((always_inline))

constexpr uint32_t kHalf = uint32_t{1} << (kFraction - 1);

VOXTORCH_INLINE uint8_t saturated(uint32_t sum) {
  const int32_t value = static_cast<int32_t>(sum) >> kFraction;
  return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

template <int kChannels>
VOXTORCH_INLINE void pixel(const ResizeAcross& args, const uint8_t* row, int64_t x, uint8_t* output) {
  const int32_t* weight = args.axis.weight + x * args.axis.taps;
  const uint8_t* from = row + int64_t{args.axis.first[x]} * kChannels;
  uint32_t sums[kChannels];
  for (uint32_t& sum : sums) sum = kHalf;
  for (int64_t i = 0; i < args.axis.count[x]; ++i) {
    for (int c = 0; c < kChannels; ++c) sums[c] += static_cast<uint32_t>(weight[i]) * from[i * kChannels + c];
  }
  for (int c = 0; c < kChannels; ++c) output[x * kChannels + c] = saturated(sums[c]);
}

template <int kChannels>
void plain_rows(const ResizeAcross& args, int64_t begin, int64_t end) {
  for (int64_t y = begin; y < end; ++y) {
    const uint8_t* row = args.input + y * args.in * kChannels;
    uint8_t* output = args.output + y * args.out * kChannels;
    for (int64_t x = 0; x < args.out; ++x) pixel<kChannels>(args, row, x, output);
  }
}

#if defined(__AVX2__)

// (high << kLow) + low, rounded and shifted to integers.
VOXTORCH_INLINE __m256i whole(__m256i high, __m256i low) {
  const __m256i sum = _mm256_add_epi32(_mm256_slli_epi32(high, kLow), low);
  return _mm256_srai_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(static_cast<int>(kHalf))), kFraction);
}

// Rows of RGB: in each half of a register two pixels, as pairs (r0 r1, g0 g1, b0 b1, 0 0) of 16 bits.
template <int kRows>
VOXTORCH_INLINE void rgb_rows(const ResizeAcross& args, int64_t y) {
  const __m256i pairs = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,  //
                                         6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
  const __m256i halves = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
  const uint8_t* rows[kRows];
  uint8_t* outputs[kRows];
  for (int r = 0; r < kRows; ++r) {
    const int64_t behind = y + r - args.tail_row;
    rows[r] = behind >= 0 ? args.tail + behind * args.in * 3 : args.input + (y + r) * args.in * 3;
    outputs[r] = args.output + (y + r) * args.out * 3;
  }
  for (int64_t x = 0; x < args.out; ++x) {
    const int16_t* high = args.axis.high + x * args.axis.taps;
    const int16_t* low = args.axis.low + x * args.axis.taps;
    const int64_t first = int64_t{args.axis.first[x]} * 3;
    __m256i upper[kRows], lower[kRows];
    for (int r = 0; r < kRows; ++r) upper[r] = lower[r] = _mm256_setzero_si256();
    for (int64_t i = 0; i < args.axis.count[x]; i += kWeightStep) {
      const __m256i h = _mm256_permutevar8x32_epi32(
          _mm256_castsi128_si256(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(high + i))), halves);
      const __m256i l = _mm256_permutevar8x32_epi32(
          _mm256_castsi128_si256(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(low + i))), halves);
      for (int r = 0; r < kRows; ++r) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[r] + first + 3 * i));
        const __m256i pixels = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes), pairs);
        upper[r] = _mm256_add_epi32(upper[r], _mm256_madd_epi16(pixels, h));
        lower[r] = _mm256_add_epi32(lower[r], _mm256_madd_epi16(pixels, l));
      }
    }
    for (int r = 0; r < kRows; ++r) {
      const __m256i sum = _mm256_add_epi32(_mm256_slli_epi32(upper[r], kLow), lower[r]);
      const __m128i both = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
      const __m128i rgb = _mm_srai_epi32(_mm_add_epi32(both, _mm_set1_epi32(static_cast<int>(kHalf))), kFraction);
      const __m128i words = _mm_packs_epi32(rgb, rgb);
      const int bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
      // The fourth byte is overwritten by the next pixel, and after the last there may be nothing of ours.
      std::memcpy(outputs[r] + 3 * x, &bytes, x + 1 < args.out ? 4 : 3);
    }
  }
}

void across(const ResizeAcross& args, int64_t begin, int64_t end) {
  if (args.channels == 1) return plain_rows<1>(args, begin, end);
  int64_t y = begin;
  for (; y + 4 <= end; y += 4) rgb_rows<4>(args, y);
  for (; y < end; ++y) rgb_rows<1>(args, y);
}

#else

void across(const ResizeAcross& args, int64_t begin, int64_t end) {
  if (args.channels == 1) return plain_rows<1>(args, begin, end);
  plain_rows<3>(args, begin, end);
}

#endif

constexpr int kColumns = 64;

// Columns [x, x + count), count at most kColumns.
VOXTORCH_INLINE void plain_columns(const ResizeDown& args, int64_t y, const uint8_t* rows, int64_t x, int64_t count) {
  const int32_t* weight = args.axis.weight + y * args.axis.taps;
  uint32_t sums[kColumns];
  for (uint32_t& sum : sums) sum = kHalf;
  for (int64_t i = 0; i < args.axis.count[y]; ++i) {
    const uint8_t* from = rows + i * args.width + x;
    for (int64_t c = 0; c < count; ++c) sums[c] += static_cast<uint32_t>(weight[i]) * from[c];
  }
  for (int64_t c = 0; c < count; ++c) args.output[y * args.width + x + c] = saturated(sums[c]);
}

void down(const ResizeDown& args, int64_t begin, int64_t end) {
  for (int64_t y = begin; y < end; ++y) {
    const uint8_t* rows = args.input + (args.axis.first[y] - args.origin) * args.width;
    int64_t x = 0;
#if defined(__AVX2__)
    const int16_t* high = args.axis.high + y * args.axis.taps;
    const int16_t* low = args.axis.low + y * args.axis.taps;
    const int64_t count = args.axis.count[y];
    for (; x + 16 <= args.width; x += 16) {
      __m256i upper[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
      __m256i lower[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
      for (int64_t i = 0; i < count; i += 2) {
        const uint8_t* from = rows + i * args.width + x;
        const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
        // Where there is no second row its weight is 0.
        const __m128i b = i + 1 < count ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + args.width)) : a;
        int h, l;
        std::memcpy(&h, high + i, sizeof(h));
        std::memcpy(&l, low + i, sizeof(l));
        const __m256i pixels[2] = {_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b)),
                                   _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b))};
        for (int k = 0; k < 2; ++k) {
          upper[k] = _mm256_add_epi32(upper[k], _mm256_madd_epi16(pixels[k], _mm256_set1_epi32(h)));
          lower[k] = _mm256_add_epi32(lower[k], _mm256_madd_epi16(pixels[k], _mm256_set1_epi32(l)));
        }
      }
      // Packing goes by halves of a register: 0-3 8-11 4-7 12-15.
      const __m256i words = _mm256_permute4x64_epi64(
          _mm256_packs_epi32(whole(upper[0], lower[0]), whole(upper[1], lower[1])), _MM_SHUFFLE(3, 1, 2, 0));
      const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(args.output + y * args.width + x), bytes);
    }
#endif
    for (; x + kColumns <= args.width; x += kColumns) plain_columns(args, y, rows, x, kColumns);
    if (x < args.width) plain_columns(args, y, rows, x, args.width - x);
  }
}

}  // namespace

const ResizeLanes VOXTORCH_BUILD(resize_lanes) = {across, down};

}  // namespace voxtorch::vision

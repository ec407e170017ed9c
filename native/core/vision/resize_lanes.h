// The inner loops of resize_image, compiled once per instruction set. Raw pointers only: files compiled with AVX2
// include this and nothing of ATen or the standard library, whose inline functions, compiled for AVX2, could be the
// copies that the linker keeps for everyone.
#pragma once

#include <cstdint>

#include "core/kernels/builds.h"

namespace voxtorch::vision {

constexpr int kFraction = 22;   // bits of a weight after the point
constexpr int kLow = 11;        // of them in the lower half
constexpr int kWeightStep = 4;  // weights of an output are padded with zeros to a multiple of this
constexpr int kOverread = 16;   // bytes after a row that `across` may read, and multiplies by 0

// What each output along one axis reads: inputs first[i] to first[i] + count[i] - 1, by weights in fixed point.
struct ResizeAxis {
  const int32_t* first;
  const int32_t* count;
  int64_t taps;           // room for the weights of an output, a multiple of kWeightStep
  const int32_t* weight;  // [out, taps]
  const int16_t* high;    // [out, taps]: weight >> kLow
  const int16_t* low;     // [out, taps]: weight - (high << kLow), not negative
};

// Rows of one image, `channels` bytes to a pixel.
struct ResizeAcross {
  ResizeAxis axis;
  const uint8_t* input;  // [rows, in, channels]
  const uint8_t* tail;   // a copy of the rows from number `tail_row` on, with kOverread bytes after it
  int64_t tail_row;      // from there on less than kOverread bytes may lie after a row of `input`
  uint8_t* output;       // [rows, out, channels]
  int64_t rows, in, out, channels;
};

// The same down the columns: a row is `width` bytes.
struct ResizeDown {
  ResizeAxis axis;
  const uint8_t* input;  // [in, width], of which row 0 is input number `origin`
  int64_t origin;
  uint8_t* output;  // [out, width]
  int64_t width;
};

struct ResizeLanes {
  void (*across)(const ResizeAcross& args, int64_t begin, int64_t end);  // rows [begin, end)
  void (*down)(const ResizeDown& args, int64_t begin, int64_t end);      // output rows [begin, end)
};

extern const ResizeLanes resize_lanes_default;
#if defined(__x86_64__)
extern const ResizeLanes resize_lanes_avx2;
#endif

}  // namespace voxtorch::vision

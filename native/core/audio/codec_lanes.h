// The transforms of MP3 and Vorbis, compiled once per instruction set, as lanes.h. Sums are in float64 and in the order
// of the formulas, so every build gives the same bits.
#pragma once

#include <cstdint>

#include "core/kernels/builds.h"

namespace voxtorch::audio {

constexpr int kBands = 32;      // of the filter bank of MPEG audio
constexpr int kBandLines = 18;  // lines of a band in a granule

// Tables of the filter bank (ISO/IEC 11172-3, 2.4.3.4), rounded to float32.
struct FilterBank {
  double even_cosines[16][16];  // [k][j / 2] of the outputs j
  double odd_cosines[16][16];
  double window[512];
};

// State of the filter bank: the last 16 outputs of its cosine transform, 64 values each.
struct FilterHistory {
  double values[1024] = {};
  int newest = 0;
};

// Tables of a discrete cosine transform of type IV.
struct CosinePlan {
  int size;                 // a power of two from 16 on
  const double* twists;     // exp(-i pi (8n + 1) / (8 size)): size / 2 real parts, then imaginary parts
  const double* roots;      // of each pass of width w = 1, 2, 4 …: w real parts, then w imaginary parts
  const int32_t* reversed;  // size / 2 indices
  double* scratch;          // size values
};

struct CodecLanes {
  // block[i] = sum over k of weights[k][i] lines[k]: the windowed IMDCT of 18 lines.
  void (*long_block)(const double (*weights)[36], const float* lines, float* block);
  // One of three short blocks: every third of 18 lines.
  void (*short_block)(const double (*weights)[12], const float* lines, double* block);
  // One sample of each band in each of 18 rows to 32 samples each.
  void (*filter)(const FilterBank& bank, FilterHistory& history, const float (*rows)[kBands], float* output);
  // values[n] = sum of values[k] cos(pi / size (n + 1/2) (k + 1/2)), in place.
  void (*cosine_transform)(const CosinePlan& plan, double* values);
};

extern const CodecLanes codec_lanes_default;
#if defined(__x86_64__)
extern const CodecLanes codec_lanes_avx2;
#endif

}  // namespace voxtorch::audio

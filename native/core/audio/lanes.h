// The inner loops of the audio operators, compiled once per instruction set. Raw pointers only: files compiled
// with AVX2 include this and nothing of ATen or the standard library, whose inline functions, compiled for AVX2, could
// be the copies that the linker keeps for everyone.
#pragma once

#include <cstdint>

#include "core/kernels/builds.h"

namespace voxtorch::audio {

constexpr int kLanes = 8;       // floats that are multiplied at once
constexpr int kFrameLanes = 4;  // frames that are transformed at once, in float64

// A real FFT of even size, done as a complex one of half the size in passes of radix 2, 3, 4 and 5.
struct FftPlan {
  static constexpr int kMaxPasses = 24;
  int64_t size = 0;  // of the real transform
  int passes = 0;
  int radix[kMaxPasses] = {};
  const double* twiddles = nullptr;  // of each pass: [points left / radix, radix - 1] complex
  const double* split = nullptr;     // [size / 4 + 1] complex: exp(-2 pi i k / size)
};

// Frames of one clip to the energies of bands. A filter is the run of its bins' weights. All is computed in float64: in
// float32 the rounding of a frame's loudest bins drowns its quietest, and a logarithm then shows it.
struct SpectrumArgs {
  const float* signal;
  int64_t hop;
  int64_t frame_length;  // at most plan.size; zeros fill the rest
  const double* window;  // [frame_length]
  bool remove_dc;
  double preemphasis;
  bool power;  // |X|², else sqrt(|X|² + magnitude_epsilon)
  double magnitude_epsilon;
  FftPlan plan;
  int64_t bands;  // 0: the bins themselves
  const int64_t* first_bin;
  const int64_t* bin_count;
  const double* const* weights;
  float* output;
  int64_t frame_stride;
  int64_t band_stride;
};

// Output n reads `taps` samples from sample n / phases * step + first[n % phases] on; signal[0] is sample `position`.
struct PolyphaseArgs {
  const float* signal;
  int64_t position;
  const float* weights;  // [phases, taps], taps a multiple of kLanes
  const int64_t* first;  // [phases]
  int64_t phases;
  int64_t taps;
  int64_t step;
  float* output;  // output[0] is output number `origin`
  int64_t origin;
};

struct AudioLanes {
  // Frames [begin, end); scratch holds spectrum_scratch(plan.size) doubles, aligned to 64 bytes.
  void (*spectrum)(const SpectrumArgs& args, int64_t begin, int64_t end, double* scratch);
  void (*polyphase)(const PolyphaseArgs& args, int64_t begin, int64_t end);
};

constexpr int64_t spectrum_scratch(int64_t size) { return kFrameLanes * (2 * size + size / 2 + 1); }

extern const AudioLanes audio_lanes_default;
#if defined(__x86_64__)
extern const AudioLanes audio_lanes_avx2;
#endif

}  // namespace voxtorch::audio

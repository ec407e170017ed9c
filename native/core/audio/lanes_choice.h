// Which build of the inner loops this processor runs.
#pragma once

#include <ATen/Version.h>

#include <string>

#include "core/audio/lanes.h"

namespace voxtorch::audio {

inline const AudioLanes& audio_lanes() {
#if defined(__x86_64__)
  static const bool avx2 = at::get_cpu_capability().rfind("AVX", 0) == 0;  // AVX2, AVX512
  return avx2 ? audio_lanes_avx2 : audio_lanes_default;
#else
  return audio_lanes_default;
#endif
}

}  // namespace voxtorch::audio

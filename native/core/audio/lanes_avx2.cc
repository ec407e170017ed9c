#if defined(__AVX2__)
#define VOXTORCH_AUDIO_LANES audio_lanes_avx2
#include "core/audio/lanes_code.h"
#endif

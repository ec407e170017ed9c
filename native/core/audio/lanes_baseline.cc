#define VOXTORCH_AUDIO_LANES audio_lanes_default
#include "core/audio/lanes_code.h"

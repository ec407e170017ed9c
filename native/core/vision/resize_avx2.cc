#if defined(__AVX2__)
#define VOXTORCH_RESIZE_LANES resize_lanes_avx2
#include "core/vision/resize_code.h"
#endif

#define VOXTORCH_RESIZE_LANES resize_lanes_default
#include "core/vision/resize_code.h"

// The baseline build: SSE on x86-64-v2, NEON on arm64.
#define VOXTORCH_LANES 4
#define VOXTORCH_SQUARES tile_linear_default
#define VOXTORCH_QUANTIZE quantize_rows_default
#include "core/kernels/tile_linear/rows.h"

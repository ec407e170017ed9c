// The baseline build: SSE on x86-64-v2, NEON on arm64.
#define VOXTORCH_LANES 4
#define VOXTORCH_ROWS layer_norm_rows_default
#include "core/kernels/layer_norm/rows.h"

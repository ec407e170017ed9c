// The baseline build: SSE on x86-64-v2, NEON on arm64.
#define VOXTORCH_LANES 4
#define VOXTORCH_ROWS rms_norm_rows_default
#include "core/kernels/rms_norm_residual/rows.h"

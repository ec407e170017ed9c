// The baseline build: SSE on x86-64-v2, NEON on arm64.
#define VOXTORCH_LANES 4
#define VOXTORCH_ROWS attention_rows_default
#include "core/kernels/gated_position_attention/rows.h"

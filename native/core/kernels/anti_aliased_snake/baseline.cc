// The baseline build: SSE on x86-64-v2, NEON on arm64.
#define VOXTORCH_LANES 4
#define VOXTORCH_ROWS snake_rows_default
#include "core/kernels/anti_aliased_snake/rows.h"

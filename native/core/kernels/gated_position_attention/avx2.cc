#if defined(__AVX2__)
#define VOXTORCH_LANES 8
#define VOXTORCH_ROWS attention_rows_avx2
#include "core/kernels/gated_position_attention/rows.h"
#endif

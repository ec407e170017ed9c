#if defined(__AVX2__)
#define VOXTORCH_LANES 8
#define VOXTORCH_ROWS window_rows_avx2
#include "core/kernels/window_cross_attention/rows.h"
#endif

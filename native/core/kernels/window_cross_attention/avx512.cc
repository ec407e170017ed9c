#if defined(__AVX512F__)
#define VOXTORCH_LANES 16
#define VOXTORCH_ROWS window_rows_avx512
#include "core/kernels/window_cross_attention/rows.h"
#endif

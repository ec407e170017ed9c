#if defined(__AVX2__)
#define VOXTORCH_LANES 8
#define VOXTORCH_ROWS step_kernels_avx2
#include "core/kernels/query_attention/rows.h"
#endif

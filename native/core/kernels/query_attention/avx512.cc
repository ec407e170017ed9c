#if defined(__AVX512F__)
#define VOXTORCH_LANES 16
#define VOXTORCH_ROWS step_kernels_avx512
#include "core/kernels/query_attention/rows.h"
#endif

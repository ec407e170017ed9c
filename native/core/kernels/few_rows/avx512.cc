#if defined(__AVX512F__)
#define VOXTORCH_LANES 16
#define VOXTORCH_ROWS few_rows_avx512
#define VOXTORCH_PREPARE few_rows_prepare_avx512
#include "core/kernels/few_rows/rows.h"
#endif

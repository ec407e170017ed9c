#if defined(__AVX2__)
#define VOXTORCH_LANES 8
#define VOXTORCH_ROWS few_rows_avx2
#define VOXTORCH_PREPARE few_rows_prepare_avx2
#include "core/kernels/few_rows/rows.h"
#endif

#if defined(__AVX512VNNI__)
#define VOXTORCH_LANES 16
#define VOXTORCH_ROWS few_rows_avx512_vnni
#define VOXTORCH_PREPARE few_rows_prepare_avx512_vnni
#include "core/kernels/few_rows/rows.h"
#endif

#if defined(__AVX512F__)
#define VOXTORCH_LANES 16
#define VOXTORCH_ROWS step_rows_avx512
#include "core/kernels/decode_step/rows.h"
#endif

#if defined(__AVX2__)
#define VOXTORCH_LANES 8
#define VOXTORCH_ROWS step_rows_avx2
#include "core/kernels/decode_step/rows.h"
#endif

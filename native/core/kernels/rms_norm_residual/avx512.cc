#if defined(__AVX512F__)
#define VOXTORCH_LANES 16
#define VOXTORCH_ROWS rms_norm_rows_avx512
#include "core/kernels/rms_norm_residual/rows.h"
#endif

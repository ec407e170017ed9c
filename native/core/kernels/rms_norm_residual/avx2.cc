#if defined(__AVX2__)
#define VOXTORCH_LANES 8
#define VOXTORCH_ROWS rms_norm_rows_avx2
#include "core/kernels/rms_norm_residual/rows.h"
#endif

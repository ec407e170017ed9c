#if defined(__AVX2__)
#define VOXTORCH_LANES 8
#define VOXTORCH_ROWS layer_norm_rows_avx2
#include "core/kernels/layer_norm/rows.h"
#endif

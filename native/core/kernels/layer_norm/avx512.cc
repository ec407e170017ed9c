#if defined(__AVX512F__)
#define VOXTORCH_LANES 16
#define VOXTORCH_ROWS layer_norm_rows_avx512
#include "core/kernels/layer_norm/rows.h"
#endif

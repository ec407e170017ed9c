#if defined(__AVX2__)
#define VOXTORCH_LANES 8
#define VOXTORCH_SQUARES tile_linear_avx2
#define VOXTORCH_QUANTIZE quantize_rows_avx2
#include "core/kernels/tile_linear/rows.h"
#endif

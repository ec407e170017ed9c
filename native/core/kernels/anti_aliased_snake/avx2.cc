#if defined(__AVX2__)
#define VOXTORCH_LANES 8
#define VOXTORCH_ROWS snake_rows_avx2
#include "core/kernels/anti_aliased_snake/rows.h"
#endif

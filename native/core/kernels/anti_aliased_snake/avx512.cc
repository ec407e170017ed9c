#if defined(__AVX512F__)
#define VOXTORCH_LANES 16
#define VOXTORCH_ROWS snake_rows_avx512
#include "core/kernels/anti_aliased_snake/rows.h"
#endif

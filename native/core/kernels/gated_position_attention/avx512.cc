#if defined(__AVX512F__)
#define VOXTORCH_LANES 16
#define VOXTORCH_ROWS attention_rows_avx512
#include "core/kernels/gated_position_attention/rows.h"
#endif

#define VOXTORCH_LANES 4
#define VOXTORCH_ROWS step_kernels_default
#include "core/kernels/query_attention/rows.h"

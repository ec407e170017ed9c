#define VOXTORCH_LANES 4
#define VOXTORCH_ROWS step_rows_default
#include "core/kernels/decode_step/rows.h"

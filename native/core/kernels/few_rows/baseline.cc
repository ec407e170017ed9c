#define VOXTORCH_LANES 4
#define VOXTORCH_ROWS few_rows_default
#include "core/kernels/few_rows/rows.h"

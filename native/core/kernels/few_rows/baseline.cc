#define VOXTORCH_LANES 4
#define VOXTORCH_ROWS few_rows_default
#define VOXTORCH_PREPARE few_rows_prepare_default
#include "core/kernels/few_rows/rows.h"

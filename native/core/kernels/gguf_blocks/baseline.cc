#define VOXTORCH_DECODE decode_gguf_default
#include "core/kernels/gguf_blocks/decode.h"

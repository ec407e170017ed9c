#if defined(__AVX2__)
#define VOXTORCH_DECODE decode_gguf_avx2
#include "core/kernels/gguf_blocks/decode.h"
#endif

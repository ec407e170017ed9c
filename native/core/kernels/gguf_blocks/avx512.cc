#if defined(__AVX512F__)
#define VOXTORCH_DECODE decode_gguf_avx512
#include "core/kernels/gguf_blocks/decode.h"
#endif

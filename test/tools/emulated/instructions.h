// AVX-512 from functions of SIMDe (Debian's libsimde-dev), for a processor with AVX2. Included ahead of a unit.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>

// Only now, so that SIMDe does not use the instructions themselves.
#define __AVX512F__ 1
#define __AVX512BW__ 1
#define __AVX512DQ__ 1
#define __AVX512VL__ 1
#ifdef EMULATED_VNNI
#define __AVX512VNNI__ 1
#endif

// SIMDe 0.7.4 has a wrong number of arguments for it.
#undef _mm512_madd_epi16
#define _mm512_madd_epi16(a, b) simde_mm512_madd_epi16(a, b)

// Its vectors are in no register that an asm statement could name.
#define VOXTORCH_IN_ORDER(value)

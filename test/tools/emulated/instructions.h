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

// SIMDe 0.7.4 has none for these.
#include <cstdint>
#include <cstring>
static inline simde__m512i widened_words(simde__m256i values) {
  uint16_t from[16];
  uint32_t to[16];
  std::memcpy(from, &values, sizeof(from));
  for (int i = 0; i < 16; ++i) to[i] = from[i];
  simde__m512i result;
  std::memcpy(&result, to, sizeof(to));
  return result;
}
#define _mm512_cvtepu16_epi32(values) widened_words(values)
static inline simde__m512 widened_halves(simde__m256i values) {
  simde__m128i halves[2];
  std::memcpy(halves, &values, sizeof(halves));
  const simde__m256 floats[2] = {simde_mm256_cvtph_ps(halves[0]), simde_mm256_cvtph_ps(halves[1])};
  simde__m512 result;
  std::memcpy(&result, floats, sizeof(floats));
  return result;
}
#define _mm512_cvtph_ps(values) widened_halves(values)
static inline simde__m256 half_of(simde__m512 values, int half) {
  simde__m256 result;
  std::memcpy(&result, reinterpret_cast<const char*>(&values) + half * sizeof(result), sizeof(result));
  return result;
}
#define _mm512_extractf32x8_ps(values, half) half_of(values, half)

// Its vectors are in no register that an asm statement could name.
#define VOXTORCH_IN_REGISTER(value)

// What the kernels of many_rows.h are given: raw pointers only, as in few_rows/args.h.
#pragma once

#include <cstdint>

#include "core/kernels/few_rows/args.h"

namespace voxtorch::kernels {

// A prepared row. 32 inputs have a scale, and each 16 of them an integer multiple of it, 1 to 127 times, as their step,
// so that one large number costs only its neighbors precision. codes int8 [padded]; the step of each 16, twice in a
// word, uint32; the negative sums of codes times steps of each 16 and of each 32, int32; the scale of each 32, and the
// scale times the sum of the 32, float. What pads is zero.
constexpr int64_t many_rows_bytes(int64_t in) { return padded_inputs(in) / 8 * 15; }

// Outputs that share a panel, which is what a thread takes at least.
constexpr int64_t kPanelOutputs = 32;

// The outputs [begin, end) of all rows; `input` of the arguments is what `prepare` made of them, and `sums` is space
// for kPanelOutputs of each row. Every build gives the same bits: integer sums are exact, and each output adds those of
// its blocks in their order. `prepare`: float [rows, in] -> as many rows of many_rows_bytes, one after the other.
#define VOXTORCH_MANY_ROWS_BUILD(name)                                                 \
  void many_rows_##name(const FewRows& args, int64_t begin, int64_t end, float* sums); \
  void many_rows_prepare_##name(const float* input, int64_t rows, int64_t in, void* to)
VOXTORCH_MANY_ROWS_BUILD(default);
#if defined(__x86_64__)
VOXTORCH_MANY_ROWS_BUILD(avx2);
VOXTORCH_MANY_ROWS_BUILD(avx512);
VOXTORCH_MANY_ROWS_BUILD(avx512_vnni);
#endif
#undef VOXTORCH_MANY_ROWS_BUILD

}  // namespace voxtorch::kernels

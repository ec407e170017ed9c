// The tensor cores of sm_80 and later, by their PTX instructions: a warp multiplies 16 x 16 by 16 x 8 numbers of half
// precision and adds to float32. Where each number lies is documented in NVIDIA's "Parallel Thread Execution ISA",
// under "Matrix fragments for mma.m16n8k16" and "ldmatrix". With group = lane / 4 and pair = lane % 4 * 2, a lane holds
//
//   left   [16 x 16], 4 words of two numbers: rows group and group + 8 of the columns pair, pair + 1; then of pair + 8,
//                     pair + 9
//   right  [16 x 8], 2 words: the column group, rows pair, pair + 1; then pair + 8, pair + 9
//   sum    [16 x 8], 4 numbers: row group, columns pair, pair + 1; then row group + 8
//
// so that the sums of two products side by side are, once narrowed, the left side of a further one.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace voxtorch::kernels {
namespace {

// sum += left * right, by all 32 lanes. T says what the words hold.
template <typename T>
__device__ void multiply_add(float (&sum)[4], const uint32_t (&left)[4], uint32_t right0, uint32_t right1);
template <>
__device__ __forceinline__ void multiply_add<__nv_bfloat16>(float (&sum)[4], const uint32_t (&left)[4], uint32_t right0,
                                                            uint32_t right1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));
}
template <>
__device__ __forceinline__ void multiply_add<__half>(float (&sum)[4], const uint32_t (&left)[4], uint32_t right0,
                                                     uint32_t right1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));
}

// Four matrices of 8 x 8 from shared memory, of which lane i names row i % 8 of matrix i / 8, on 16 bytes: words[m] of
// a lane is row group, columns pair and pair + 1 of matrix m.
__device__ __forceinline__ void load_matrices(uint32_t (&words)[4], const void* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
}
// Each turned over: rows pair and pair + 1 of column group.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&words)[4], const void* row) {
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
}

// Two numbers as one word, the first in its lower half.
template <typename T>
__device__ uint32_t narrow_pair(float first, float second);
template <>
__device__ __forceinline__ uint32_t narrow_pair<__nv_bfloat16>(float first, float second) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  return word;
}
template <>
__device__ __forceinline__ uint32_t narrow_pair<__half>(float first, float second) {
  uint32_t word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  return word;
}

}  // namespace
}  // namespace voxtorch::kernels

// Kernels that are compiled once for each instruction set (cmake/simd.cmake) and chosen at run time. Nothing of ATen,
// as in rms_norm_residual/args.h.
#pragma once

// In a unit that is compiled several times: a name with the instruction set of this build, such as snake_rows_avx2.
#define VOXTORCH_JOIN(name, set) name##_##set
#define VOXTORCH_JOIN_VALUES(name, set) VOXTORCH_JOIN(name, set)
#define VOXTORCH_BUILD(name) VOXTORCH_JOIN_VALUES(name, VOXTORCH_INSTRUCTION_SET)

namespace voxtorch {

enum class InstructionSet { kDefault, kAvx2, kAvx512 };

// Return the instruction set of ATen's own kernels: the best of this processor, or what ATEN_CPU_CAPABILITY names.
InstructionSet instruction_set();

// Return the build, a table or a function, for that instruction set.
template <typename Build>
Build& best_build(Build& plain, Build& avx2, Build& avx512) {
  const InstructionSet set = instruction_set();
  return set == InstructionSet::kAvx512 ? avx512 : set == InstructionSet::kAvx2 ? avx2 : plain;
}

// The second is for kernels without a build for AVX-512, where that for AVX2 is the best.
#if defined(__x86_64__)
#define VOXTORCH_BEST_BUILD(name) ::voxtorch::best_build(name##_default, name##_avx2, name##_avx512)
#define VOXTORCH_BEST_OF_TWO_BUILDS(name) ::voxtorch::best_build(name##_default, name##_avx2, name##_avx2)
#else
#define VOXTORCH_BEST_BUILD(name) name##_default
#define VOXTORCH_BEST_OF_TWO_BUILDS(name) name##_default
#endif

}  // namespace voxtorch

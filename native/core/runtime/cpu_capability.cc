// ATen takes the instruction set that ATEN_CPU_CAPABILITY names without a look at the processor, and the process ends
// at the first instruction that is not there. Here a name that the processor lacks is replaced by what it has.
//
// ATEN_CPU_CAPABILITY with an older instruction set limits oneDNN too. ATen's attention in half precision
// asks oneDNN whether to pack a matrix and packs it with its own AVX-512 code: where only ATen is held back, that code
// is not there, and the call fails, in Python as well.

#include <ATen/Version.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "core/kernels/builds.h"

namespace voxtorch {
namespace {

#if defined(__x86_64__)
/** The best set that ATen has code for on this processor. */
const char* best() {
  __builtin_cpu_init();
  const bool fma = __builtin_cpu_supports("fma");
  if (fma && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq"))
    return "avx512";
  return fma && __builtin_cpu_supports("avx2") ? "avx2" : "default";
}

bool has(const std::string& wanted) {
  const std::string most = best();
  return most == "avx512" || wanted == most || wanted == "default";
}
#endif

// Before ATen looks, which it does once, and before oneDNN looks, which it does at its first use.
[[maybe_unused]] const bool held = [] {
#if defined(__x86_64__)
  const char* const wanted = std::getenv("ATEN_CPU_CAPABILITY");
  if (wanted == nullptr) return false;
  const std::string name = wanted;
  if ((name == "avx2" || name == "avx512") && !has(name)) {
    std::fprintf(stderr, "[voxtorch] ATEN_CPU_CAPABILITY=%s: this processor has no such instructions; it is %s\n",
                 wanted, best());
    setenv("ATEN_CPU_CAPABILITY", best(), 1);
  }
  const std::string capability = at::get_cpu_capability();
  const char* const same = capability == "AVX2" ? "AVX2" : capability == "DEFAULT" ? "SSE41" : nullptr;
  return same != nullptr && setenv("ONEDNN_MAX_CPU_ISA", same, 0) == 0;
#else
  return false;
#endif
}();

}  // namespace

InstructionSet instruction_set() {
  static const InstructionSet set = [] {
    const std::string capability = at::get_cpu_capability();
    if (capability.rfind("AVX512", 0) == 0) return InstructionSet::kAvx512;
    return capability == "AVX2" ? InstructionSet::kAvx2 : InstructionSet::kDefault;
  }();
  return set;
}

}  // namespace voxtorch

#include <ATen/Version.h>

#include <string>

#include "core/kernels/query_attention/args.h"

namespace voxtorch::kernels {

const StepKernels& step_kernels() {
#if defined(__x86_64__)
  static const StepKernels& chosen = [&]() -> const StepKernels& {
    const std::string capability = at::get_cpu_capability();
    if (capability.rfind("AVX512", 0) == 0) return step_kernels_avx512;
    if (capability == "AVX2") return step_kernels_avx2;
    return step_kernels_default;
  }();
  return chosen;
#else
  return step_kernels_default;
#endif
}

}  // namespace voxtorch::kernels

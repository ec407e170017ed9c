// Who holds ATen to an older instruction set (ATEN_CPU_CAPABILITY) means oneDNN too. ATen's attention in half precision
// asks oneDNN whether to pack a matrix and packs it with its own AVX-512 code: where only ATen is held back, that code
// is not there, and the call fails, in Python as well.

#include <ATen/Version.h>

#include <cstdlib>
#include <string>

namespace voxtorch {
namespace {

// Before oneDNN looks, which it does at its first use.
[[maybe_unused]] const bool held = [] {
#if defined(__x86_64__)
  if (std::getenv("ATEN_CPU_CAPABILITY") == nullptr) return false;
  const std::string capability = at::get_cpu_capability();
  const char* const same = capability == "AVX2" ? "AVX2" : capability == "DEFAULT" ? "SSE41" : nullptr;
  return same != nullptr && setenv("ONEDNN_MAX_CPU_ISA", same, 0) == 0;
#else
  return false;
#endif
}();

}  // namespace
}  // namespace voxtorch

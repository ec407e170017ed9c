// The addon: one Environment per JavaScript thread that loads it. lib/native/addon.ts types what is exported here.
#include "binding/environment.h"
#include "core/kernels/float_attention/float_attention.h"
#include "core/kernels/float_product/float_product.h"
#include "core/kernels/full_reduction.h"
#include "core/runtime/autograd.h"
#include "core/runtime/cpu_memory.h"
#include "core/runtime/launcher.h"

namespace voxtorch {
namespace {

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  // Once in the process: every thread has an environment.
  static const bool prepared =
      (memory::use_cpu_cache(), end_with_launcher(), give_zeros_memory(), kernels::use_full_reductions(),
       kernels::use_float_products(), kernels::use_float_attention(), true);
  (void)prepared;
  Environment::create(env);
  export_operators(exports);
  export_calls(exports);
  export_jobs(exports);
  export_tensors(exports);
  export_autograd(exports);
  export_functorch(exports);
  export_audio(exports);
  return exports;
}

}  // namespace
}  // namespace voxtorch

NAPI_MODULE_INIT() { return Napi::RegisterModule(env, exports, voxtorch::initialize); }

// The addon: one Environment per JavaScript thread that loads it. lib/native/addon.ts types what is exported here.
#include "binding/environment.h"
#include "core/cpu_memory.h"
#include "core/launcher.h"

NAPI_MODULE_INIT() {
  using namespace voxtorch;
  memory::use_cpu_cache();
  end_with_launcher();
  new Environment(env);  // owned by the environment's instance data
  export_operators(env, exports);
  export_calls(env, exports);
  export_jobs(env, exports);
  export_tensors(env, exports);
  export_autograd(env, exports);
  export_hooks(env, exports);
  export_runtime(env, exports);
  return exports;
}

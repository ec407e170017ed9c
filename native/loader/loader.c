// voxtorch_loader.node: opens libtorch by its full path before voxtorch.node is loaded, whose needed libraries then
// resolve by SONAME to the ones already mapped. That is why no LD_LIBRARY_PATH and no recorded run path is needed.
// It must never link libtorch itself. Plain C, so that it also loads where the C++ runtime is too old, and can say so.
#include <dlfcn.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdlib.h>

static napi_value Throw(napi_env env, const char* code, const char* message) {
  // Refused only where an exception is on its way already.
  const bool thrown = napi_throw_error(env, code, message) == napi_ok;
  (void)thrown;
  return NULL;
}

// open(path: string, shareSymbols?: boolean): void. The library stays open for the life of the process. Only what
// libtorch itself depends on (OpenMP, CUDA) shares its symbols, as in Python: libtorch carries copies of libraries that
// another addon may carry too.
static napi_value Open(napi_env env, napi_callback_info info) {
  size_t argc = 2;
  napi_value arguments[2];
  size_t length;
  bool share = false;
  if (napi_get_cb_info(env, info, &argc, arguments, NULL, NULL) != napi_ok || argc < 1 ||
      napi_get_value_string_utf8(env, arguments[0], NULL, 0, &length) != napi_ok ||
      (argc > 1 && napi_get_value_bool(env, arguments[1], &share) != napi_ok)) {
    return Throw(env, "ERR_INVALID_ARG_TYPE", "open(path, shareSymbols?) takes the path of a shared library");
  }
  char* path = malloc(length + 1);
  if (path == NULL) return Throw(env, "ERR_OUT_OF_MEMORY", "out of memory");
  if (napi_get_value_string_utf8(env, arguments[0], path, length + 1, &length) != napi_ok) {
    free(path);
    return Throw(env, "ERR_INVALID_ARG_TYPE", "open(path, shareSymbols?) could not read its path");
  }
  void* library = dlopen(path, RTLD_NOW | (share ? RTLD_GLOBAL : RTLD_LOCAL));
  free(path);
  if (library == NULL) return Throw(env, "ERR_DLOPEN_FAILED", dlerror());
  return NULL;
}

NAPI_MODULE_INIT() {
  napi_value open;
  if (napi_create_function(env, "open", NAPI_AUTO_LENGTH, Open, NULL, &open) != napi_ok ||
      napi_set_named_property(env, exports, "open", open) != napi_ok) {
    return Throw(env, "ERR_DLOPEN_FAILED", "Node-API refused the loader's function");
  }
  return exports;
}

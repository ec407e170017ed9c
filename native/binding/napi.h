// Node-API. Exports go through node-addon-api; raw calls are left where it would be too slow (the call of an operator),
// or would end the process where a call fails (its own errors, its handle scopes), and each of them is checked.
//
// C++ exceptions are on, because libtorch throws them anyway: a call that Node-API refuses ends the function that it is
// in, as any error of libtorch does. _ALL: whatever else is thrown becomes a JavaScript error at the export, so that
// nothing is thrown through the C frames of Node.
#pragma once

#define NAPI_VERSION 8
#define NODE_ADDON_API_CPP_EXCEPTIONS
#define NODE_ADDON_API_CPP_EXCEPTIONS_ALL
// A worker that is being terminated lets nothing be thrown; that is no reason to abort.
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS
#include <napi.h>

#include <string>
#include <vector>

#include "core/runtime/errors.h"

namespace voxtorch {

// Throws where Node-API refused a raw call.
inline void check(napi_status status, const char* call) {
  if (status != napi_ok) [[unlikely]]
    fail(ErrorKind::kOther, std::string(call) + " failed with Node-API status " + std::to_string(status));
}

// An argument, or `otherwise` if it is not a number: a Tensor constructed by hand from a string has a handle that names
// nothing.
inline double number(const Napi::CallbackInfo& info, size_t index, double otherwise = -1) {
  double value = otherwise;
  const napi_status status = napi_get_value_double(info.Env(), info[index], &value);
  if (status != napi_number_expected) check(status, "napi_get_value_double");
  return value;
}

inline Napi::Array texts(Napi::Env env, const std::vector<std::string>& values) {
  const Napi::Array list = Napi::Array::New(env, values.size());
  for (size_t i = 0; i < values.size(); ++i) list.Set(static_cast<uint32_t>(i), values[i]);
  return list;
}

}  // namespace voxtorch

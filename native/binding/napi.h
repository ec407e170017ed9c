// Numbers and texts of Node-API.
#pragma once

#define NAPI_VERSION 8
#include <node_api.h>

#include <string>
#include <vector>

#include "binding/errors.h"

namespace voxtorch {

inline napi_value number(napi_env env, double value) {
  napi_value result;
  napi_create_double(env, value, &result);
  return result;
}

inline napi_value text(napi_env env, const std::string& value) {
  napi_value result;
  napi_create_string_utf8(env, value.data(), value.size(), &result);
  return result;
}

inline napi_value texts(napi_env env, const std::vector<std::string>& values) {
  napi_value list;
  napi_create_array_with_length(env, values.size(), &list);
  for (size_t i = 0; i < values.size(); ++i)
    napi_set_element(env, list, static_cast<uint32_t>(i), text(env, values[i]));
  return list;
}

// A function's first argument.
inline napi_value argument(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value value = nullptr;
  napi_get_cb_info(env, info, &count, &value, nullptr, nullptr);
  return value;
}

// The same as a number; 0 where it is none.
inline double number_argument(napi_env env, napi_callback_info info) {
  double result = 0;
  napi_get_value_double(env, argument(env, info), &result);
  return result;
}

// The same as a text; throws where it is none.
inline std::string text_argument(napi_env env, napi_callback_info info) {
  const napi_value value = argument(env, info);
  size_t length = 0;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) {
    fail(ErrorKind::kArguments, "expected a string");
  }
  std::string text(length, '\0');
  napi_get_value_string_utf8(env, value, text.data(), length + 1, &length);
  return text;
}

}  // namespace voxtorch

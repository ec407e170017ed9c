// How native failures travel: caught here, classified, and turned into one of the error classes of
// lib/base/errors.ts.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace voxtorch {

// Numbers shared with lib/base/errors.ts.
enum class ErrorKind : int {
  kOther = 0,
  kIndex = 1,
  kValue = 2,
  kType = 3,
  kNotImplemented = 4,
  kOutOfMemory = 5,
  kLinearAlgebra = 6,
  kBusy = 7,
  kDisposed = 8,
  kArguments = 9,
  kJavaScript = 10,
  kCancelled = 11,
  kFile = 12,
  kDistributed = 13,
};

struct ErrorInfo {
  ErrorKind kind = ErrorKind::kOther;
  std::string message;
  std::string op;
  uint32_t js_error = 0;  // which JavaScript exception (kJavaScript)
};

// An error of our own, whose class is known where it is thrown.
struct KindError : std::runtime_error {
  KindError(ErrorKind kind, const std::string& message, uint32_t js_error)
      : std::runtime_error(message), kind(kind), js_error(js_error) {}
  ErrorKind kind;
  uint32_t js_error;
};

[[noreturn, gnu::cold]] void fail(ErrorKind kind, const std::string& message, uint32_t js_error = 0);

// Call inside a catch block.
ErrorInfo current_error();

}  // namespace voxtorch

#include "core/runtime/errors.h"

#include <c10/util/Exception.h>

#include <new>

#include "core/io/file.h"

namespace voxtorch {
namespace {

// gloo's exceptions have a class that its wheel does not show; their sentences begin with gloo's source file.
bool is_gloo(const std::string& message) { return message.find("gloo/") != std::string::npos; }

}  // namespace

void fail(ErrorKind kind, const std::string& message, uint32_t js_error) { throw KindError(kind, message, js_error); }

ErrorInfo current_error() {
  ErrorInfo info;
  try {
    throw;
  } catch (const KindError& error) {
    info.kind = error.kind;
    info.message = error.what();
    info.js_error = error.js_error;
  } catch (const c10::OutOfMemoryError& error) {
    info = {ErrorKind::kOutOfMemory, error.what_without_backtrace(), "", 0};
  } catch (const c10::IndexError& error) {
    info = {ErrorKind::kIndex, error.what_without_backtrace(), "", 0};
  } catch (const c10::ValueError& error) {
    info = {ErrorKind::kValue, error.what_without_backtrace(), "", 0};
  } catch (const c10::TypeError& error) {
    info = {ErrorKind::kType, error.what_without_backtrace(), "", 0};
  } catch (const c10::NotImplementedError& error) {
    info = {ErrorKind::kNotImplemented, error.what_without_backtrace(), "", 0};
  } catch (const c10::LinAlgError& error) {
    info = {ErrorKind::kLinearAlgebra, error.what_without_backtrace(), "", 0};
  } catch (const c10::DistError& error) {
    info = {ErrorKind::kDistributed, error.what_without_backtrace(), "", 0};
  } catch (const c10::Error& error) {
    info.message = error.what_without_backtrace();
    if (info.message.find("can't allocate memory") != std::string::npos) info.kind = ErrorKind::kOutOfMemory;
  } catch (const io::FileError& error) {
    info = {ErrorKind::kFile, error.what(), "", 0};
  } catch (const std::bad_alloc&) {
    info = {ErrorKind::kOutOfMemory, "the process could not allocate memory", "", 0};
  } catch (const std::exception& error) {
    info.message = error.what();
    if (is_gloo(info.message)) info.kind = ErrorKind::kDistributed;
  } catch (...) {
    info.message = "unknown native exception";
  }
  return info;
}

}  // namespace voxtorch

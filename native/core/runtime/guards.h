// Checks that libtorch leaves out: arguments with which an operator would crash the process or never return.
#pragma once

#include <ATen/core/function_schema.h>
#include <ATen/core/stack.h>

#include <string>

namespace voxtorch {

// Throws on arguments that the operator must not see. The stack holds one value for each argument of the schema.
using Guard = void (*)(const c10::FunctionSchema& schema, const torch::jit::Stack& stack);

// The guard of an operator such as `aten::lstm`, or nullptr: nearly all need none. test/fuzz finds those that do.
Guard guard_of(const std::string& op);

}  // namespace voxtorch

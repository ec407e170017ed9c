// The operators that JavaScript calls, looked up once, and what the schemas of their overloads ask for.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include "binding/environment.h"
#include "core/runtime/guards.h"
#include "core/runtime/wide_call.h"

namespace voxtorch {

struct Overload {
  explicit Overload(c10::OperatorHandle handle) : handle(std::move(handle)) {}
  c10::OperatorHandle handle;
  std::vector<ArgumentSpec> arguments;
  size_t positional = 0;     // arguments that may be given by place
  size_t device = SIZE_MAX;  // where a factory function's `device` is
  int gather_list = -1;      // the list argument that stands for all numbers given by place, as in x.view(2, 3)
  bool factory = false;      // takes no tensor
  bool writes = false;
  Width width;
  Guard guard = nullptr;
  // Operators on one or two tensors are called unboxed: for a small tensor, boxing costs as much as the work.
  std::optional<c10::TypedOperatorHandle<at::Tensor(const at::Tensor&)>> unary;
  std::optional<c10::TypedOperatorHandle<at::Tensor(const at::Tensor&, const at::Tensor&)>> binary;
  std::optional<c10::TypedOperatorHandle<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Scalar&)>>
      scaled_binary;
  // And slicing, which indexing is made of.
  std::optional<c10::TypedOperatorHandle<at::Tensor(const at::Tensor&, int64_t, std::optional<c10::SymInt>,
                                                    std::optional<c10::SymInt>, c10::SymInt)>>
      slice;
};

struct Operator {
  std::string name;
  std::vector<Overload> overloads;
  const Overload* unary = nullptr;  // what one tensor, or two, and nothing else select
  const Overload* binary = nullptr;
  const Overload* slice = nullptr;
};

// The operator of this name, such as `aten::add`; throws where there is none.
Operator* operator_named(const std::string& name);
// Whether it writes into an argument `out`.
bool is_out(const Overload& overload);

// The operator whose number is in the header.
inline Operator& requested(Environment& self) {
  const double id = self.header(Environment::kOperator);
  if (!(id >= 0) || id >= double(self.operators.size())) fail(ErrorKind::kArguments, "unknown operator number");
  return *self.operators[static_cast<size_t>(id)];
}

}  // namespace voxtorch

// What the kernels of our own ask of their arguments.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/core/ScalarType.h>

#include <initializer_list>
#include <string_view>

namespace voxtorch::kernels {

// Whether autograd must record the call. Tensors may be undefined.
inline bool any_requires_grad(std::initializer_list<const at::Tensor*> tensors) {
  if (!c10::GradMode::is_enabled()) return false;
  for (const at::Tensor* tensor : tensors) {
    if (tensor->defined() && tensor->requires_grad()) return true;
  }
  return false;
}

inline std::string_view dtype_name(const at::Tensor& tensor) { return c10::getDtypeNames(tensor.scalar_type()).first; }

}  // namespace voxtorch::kernels

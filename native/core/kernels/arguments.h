// Checks of arguments that kernels share.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

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

inline void check_floating(const char* op, const char* name, const at::Tensor& tensor) {
  const at::ScalarType type = tensor.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf, op, ": ", name,
              " must have dtype float32, float64, bfloat16 or float16, got ", dtype_name(tensor));
}

inline void check_device(const char* op, const char* name, const at::Tensor& tensor, const char* other_name,
                         const at::Tensor& other) {
  TORCH_CHECK(tensor.device() == other.device(), op, ": ", name, " is on ", tensor.device(), " but ", other_name,
              " is on ", other.device(), "; both must be on the same device");
}

// With `float32_too` the tensor may be float32 where the other has a half precision.
inline void check_dtype(const char* op, const char* name, const at::Tensor& tensor, const char* other_name,
                        const at::Tensor& other, bool float32_too = false) {
  const bool half = other.scalar_type() == at::kBFloat16 || other.scalar_type() == at::kHalf;
  TORCH_CHECK(
      tensor.scalar_type() == other.scalar_type() || (float32_too && half && tensor.scalar_type() == at::kFloat), op,
      ": ", name, " is ", dtype_name(tensor), " but ", other_name, " is ", dtype_name(other),
      "; both must have the same dtype", float32_too && half ? ", or this one float32" : "");
}

// Return the member of a kernel's enum for the tensor's dtype.
template <typename Type>
Type kernel_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kBFloat16:
      return Type::kBFloat16;
    case at::kHalf:
      return Type::kFloat16;
    case at::kDouble:
      return Type::kFloat64;
    default:
      return Type::kFloat32;
  }
}

}  // namespace voxtorch::kernels

// What the kernels of our own take: everything else is left to ATen.
#pragma once

#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/core/Tensor.h>

namespace voxtorch::kernels {

// A strided tensor of the CPU that is nothing but its elements: no negation or conjugation to come, no forward
// gradient, no subclass.
inline bool is_plain(const at::Tensor& tensor, c10::ScalarType dtype) {
  return tensor.is_cpu() && tensor.layout() == at::kStrided && tensor.scalar_type() == dtype && !tensor.is_neg() &&
         !tensor.is_conj() && !tensor._fw_grad(0).defined() && !at::isTensorSubclassLike(tensor);
}

}  // namespace voxtorch::kernels

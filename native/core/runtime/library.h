// Kernels of ATen's own operators that this library replaces.
#pragma once

#include <torch/library.h>

#include <functional>

namespace voxtorch {

// Registers what `define` implements as kernels of `aten` operators for a dispatch key, without libtorch's warning that
// they replace others.
void replace_kernels(c10::DispatchKey key, const std::function<void(torch::Library&)>& define);

}  // namespace voxtorch

// What is computed of tensors that seldom change, such as adapters in the dtype of the layer that they are for: made
// once for as long as they do not.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

namespace voxtorch::kernels {

// What `make` gives, without a gradient. On CUDA it is kept until one of the sources changes, which their versions
// tell: whatever writes into a tensor other than by ATen must bump that. `purpose` tells apart what is made of the same
// sources. On the CPU, where JavaScript may write into a tensor's memory, nothing is kept.
at::Tensor derived(const std::vector<at::Tensor>& sources, const std::string& purpose,
                   const std::function<at::Tensor()>& make);

// Forgets all of it.
void release_derived();

// A tensor in another dtype, kept so.
at::Tensor derived_cast(const at::Tensor& tensor, at::ScalarType dtype);

}  // namespace voxtorch::kernels

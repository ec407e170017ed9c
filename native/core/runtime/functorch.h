// Function transforms: libtorch's levels (functorch) for gradients, forward derivatives and batching. The levels belong
// to the calling thread, so a transformed function must run synchronously on it.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

namespace voxtorch {

// Whether this thread is inside a transform.
bool in_transform();

// Opens a level on this thread and returns its number, which is 1 for the outermost one. `kind` is "grad", "jvp" or
// "vmap"; batch_size and randomness ("error", "same", "different") are those of vmap.
int64_t enter_transform(const std::string& kind, int64_t batch_size, const std::string& randomness);
// Closes this level and all levels inside it.
void leave_transform(int64_t level);

// Tensors of a grad or jvp level on the memory of others, as leaves that require a gradient if `requires_grad`.
std::vector<at::Tensor> wrap_for_level(const std::vector<at::Tensor>& tensors, int64_t level, bool requires_grad);
std::vector<at::Tensor> unwrap_from_level(const std::vector<at::Tensor>& tensors, int64_t level);

// A tensor whose dimension `dim` is the batch of a vmap level, and the way back.
at::Tensor batch_for_level(const at::Tensor& tensor, int64_t dim, int64_t level);
at::Tensor unbatch_from_level(const at::Tensor& tensor, int64_t level, int64_t batch_size, int64_t out_dim);

// The gradients on this thread, recorded; zeros for inputs that the outputs do not depend on.
std::vector<at::Tensor> gradients_here(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
                                       const std::vector<at::Tensor>& grad_outputs);

// The tensor inside all wrappers of grad and jvp levels, for reading its elements; undefined inside a batch, where
// there are no elements of one sample.
at::Tensor without_wrappers(const at::Tensor& tensor);

}  // namespace voxtorch

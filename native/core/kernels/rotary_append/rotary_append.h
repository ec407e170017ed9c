// The rotary position embedding of a decoding step and its write to the cache, in one launch on CUDA.
#pragma once

#include <ATen/core/Tensor.h>

namespace voxtorch::kernels {

// As the operator of this name. qkv [rows, (heads + 2 * kv_heads) * head_dim] holds query, key and value of one token
// of each row, not yet rotated; keys, values [rows, kv_heads, capacity, head_dim] the cache, of any strides; position
// int64 [1] the tokens in it; cos, sin as nn::Rotation has them for one position, [rows or 1, 1, 1, rotated / 2]
// (dimensions of 1 may lack), for the first `rotated` dimensions of each head, an even number up to head_dim. Rotates
// those of query and key in the half-rotation layout, writes key and value to place
// `position` of the cache, returns the query [rows, heads, head_dim]. All of qkv's dtype. A position that the cache
// does not have is an error on the CPU; CUDA, which does not wait for the number, leaves the cache as it is.
at::Tensor rotary_append_(const at::Tensor& qkv, const at::Tensor& cos, const at::Tensor& sin, at::Tensor& keys,
                          at::Tensor& values, const at::Tensor& position, int64_t heads);

void check_rotary_append(const at::Tensor& qkv, const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& keys,
                         const at::Tensor& values, const at::Tensor& position, int64_t heads);

}  // namespace voxtorch::kernels

// oneDNN multiplies with weights in blocks, and makes the blocks anew at every call. Those of a frozen weight (one that
// asks for no gradient, as after freeze()) are kept from its second use on, which saves a few hundredths of a forward
// pass of a thousand rows and more of a shorter one.
#pragma once

#include <ATen/core/Tensor.h>

namespace voxtorch::kernels {

// The weight [out, in] in blocks for products with inputs of so many rows; undefined where it is not kept: it was not
// used before (unless `at_once`), or all that is kept has reached 512 MiB. A weight that has changed since is packed
// again. Of bfloat16 on a processor with AMX, and of int8, this is tiled_weight.
at::Tensor packed_weight(const at::Tensor& weight, int64_t rows, bool at_once = false);

void release_packed_weights();

}  // namespace voxtorch::kernels
